"""What a budget contains: by hand, and against a reader that reads documents one by one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataeng.errors import FormatError
from dataeng.formats.mixture import MixtureManifest, Order, Policy
from dataeng.mixture.build import build_mixture
from dataeng.mixture.weighting import WantedStage
from dataeng.report.mixture_preview import PreviewRow, by_stage, preview
from tests.small_packs import write_pack


def mixture(tmp_path: Path, order: Order | None = None) -> tuple[MixtureManifest, Path]:
    docs = {"language": ["en", "de", "en", None], "score": [4.0, 1.0, 3.0, None]}
    folders = [
        write_pack(tmp_path, "web", [10, 20, 30, 40], docs=docs),
        write_pack(tmp_path, "code", [25, 25]),
    ]
    stages = [
        WantedStage("first", 0.5, Policy(name="given"), {"web": 1.0}),
        WantedStage("last", 1.0, Policy(name="given"), {"web": 0.5, "code": 0.5}),
    ]
    path = tmp_path / "mix.json"
    orders = {} if order is None else {"web": order}
    return build_mixture(folders, path, policy=Policy(name="given"), schedule=stages, orders=orders), path


def test_a_shuffled_domain_is_drawn_in_its_own_proportions(tmp_path: Path) -> None:
    manifest, path = mixture(tmp_path)
    rows = by_stage(preview(manifest, path, 80))
    # 80 tokens: 40 of the web, then 20 and 20 of code.
    assert list(rows) == ["all", "first", "last"]
    assert rows["all"] == [
        PreviewRow("all", "code", None, 2, 50, 1, 20, pytest.approx(0.4)),
        PreviewRow("all", "web", "en", 2, 40, 2, 24, pytest.approx(0.6)),
        PreviewRow("all", "web", None, 1, 40, 1, 24, pytest.approx(0.6)),
        PreviewRow("all", "web", "de", 1, 20, 1, 12, pytest.approx(0.6)),
    ]
    assert [(row.domain, row.tokens_drawn) for row in rows["first"]] == [("web", 16), ("web", 16), ("web", 8)]
    assert [(row.domain, row.tokens_drawn) for row in rows["last"]] == [
        ("code", 20), ("web", 8), ("web", 8), ("web", 4)
    ]  # fmt: skip


def test_a_curriculum_is_read_in_order(tmp_path: Path) -> None:
    manifest, path = mixture(tmp_path, Order(by="score"))
    rows = by_stage(preview(manifest, path, 80))
    # In the order of scores: de 20, en 30, en 10, and the one without a score 40. The first stage reads 40 tokens, the
    # last one the next 20.
    drawn = {
        stage: {r.language: r.tokens_drawn for r in of_stage if r.domain == "web"} for stage, of_stage in rows.items()
    }
    assert drawn == {"all": {"en": 40, "de": 20}, "first": {"en": 20, "de": 20}, "last": {"en": 20}}
    descending, path = mixture(tmp_path / "again", Order(by="score", descending=True))
    first = by_stage(preview(descending, path, 80))["first"]
    assert {row.language: row.tokens_drawn for row in first} == {"en": 40}


def test_repeated_epochs_count_documents_once(tmp_path: Path) -> None:
    manifest, path = mixture(tmp_path, Order(by="score"))
    rows = [row for row in by_stage(preview(manifest, path, 400))["all"] if row.domain == "web"]
    # 200 + 100 tokens of 100: three epochs.
    assert {row.language: (row.documents_drawn, row.tokens_drawn, row.epochs) for row in rows} == {
        "en": (2, 120, 3.0), None: (1, 120, 3.0), "de": (1, 60, 3.0)
    }  # fmt: skip


def test_packs_that_have_changed_are_refused(tmp_path: Path) -> None:
    manifest, path = mixture(tmp_path)
    web = manifest.domains["web"].model_copy(update={"num_tokens": 99})
    changed = manifest.model_copy(update={"domains": manifest.domains | {"web": web}})
    with pytest.raises(FormatError, match=r"of domain 'web' have changed: their documents have 100 tokens, .* 99"):
        preview(changed, path, 80)
    (tmp_path / "packs/web/00000.docs.parquet").write_bytes(b"PAR1")
    with pytest.raises(FormatError, match=r"cannot read the documents of .*web"):
        preview(manifest, path, 80)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 5), st.sampled_from(["en", "de"])), min_size=1, max_size=8),
    st.integers(1, 60),
    st.booleans(),
)
def test_a_curriculum_against_reading_token_by_token(
    tmp_path_factory: pytest.TempPathFactory, documents: list[tuple[int, int, str]], budget: int, descending: bool
) -> None:
    folder = tmp_path_factory.mktemp("curriculum")
    # Different scores, so that there is one order only.
    scores = [score * 100 + i for i, (_, score, _) in enumerate(documents)]
    docs = {"language": [language for *_, language in documents], "score": scores}
    pack = write_pack(folder, "web", [length for length, *_ in documents], docs=docs)
    order = Order(by="score", descending=descending)
    manifest = build_mixture([pack], folder / "mix.json", policy=Policy(name="natural"), orders={"web": order})
    sequence = [
        language
        for _, (length, _, language) in sorted(
            zip(scores, documents, strict=True), key=lambda item: -item[0] if descending else item[0]
        )
        for language in [language] * length
    ]
    read = [sequence[position % len(sequence)] for position in range(budget)]
    expected = {language: read.count(language) for language in set(read)}
    assert {row.language: row.tokens_drawn for row in preview(manifest, folder / "mix.json", budget)} == expected
