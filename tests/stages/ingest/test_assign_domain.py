from __future__ import annotations

import polars as pl
import pytest
from pydantic import ValidationError

from dataeng.errors import ConfigError
from dataeng.stages.ingest.assign_domain import AssignDomain

BATCH = pl.DataFrame(
    {
        "domain": ["web", "web", "code", "web"],
        "host": ["docs.test", "a.test", "docs.test", None],
        "language": ["en", "de", None, None],
    }
)


def stage(*rules: tuple[str, str]) -> AssignDomain:
    return AssignDomain.model_validate({"rules": [{"domain": d, "where": w} for d, w in rules]})


def domains(batch: pl.DataFrame, *rules: tuple[str, str]) -> list[str]:
    result = stage(*rules).apply(batch)
    assert result.drop("domain").equals(batch.drop("domain"))
    return result["domain"].to_list()


def test_first_match_wins_and_others_stay() -> None:
    rules = (
        ("docs", "host == 'docs.test' and domain == 'web'"),
        ("german", "language == 'de'"),
        ("all_docs", "host == 'docs.test'"),
    )
    assert domains(BATCH, *rules) == ["docs", "german", "all_docs", "web"]
    assert domains(BATCH, *rules[::-1]) == ["all_docs", "german", "all_docs", "web"]


def test_null_is_no_match() -> None:
    assert domains(BATCH, ("x", "language != 'en'")) == ["web", "x", "code", "web"]


def test_empty_batch() -> None:
    assert stage(("x", "language == 'en'")).apply(BATCH[:0]).schema == BATCH.schema


def test_columns() -> None:
    columns = stage(("x", "language == 'en'"), ("y", "host == 'a' or domain == 'b'")).columns()
    assert set(columns.reads) == {"domain", "host", "language"} and not columns.adds and not columns.signals


@pytest.mark.parametrize("name", ["", "Web", "a b", "../x", "x" * 65, "é", "web\n"])
def test_names_are_checked(name: str) -> None:
    with pytest.raises(ValidationError, match="String should match pattern"):
        stage((name, "host == 'a'"))


def test_bad_predicates_are_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="is not an expression"):
        stage(("x", "host == "))
    with pytest.raises(ValidationError):
        AssignDomain(rules=())
