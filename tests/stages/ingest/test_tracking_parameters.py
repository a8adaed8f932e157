"""The lists of query parameters: well formed, and found by name."""

from __future__ import annotations

import pytest

from dataeng.kernels.canonical_urls import dropped_parameters
from dataeng.stages.ingest.tracking_parameters import PARAMETER_LISTS, parameters_of


def test_lists_are_replaced_by_what_is_in_them() -> None:
    found = parameters_of(["@session", "print", "page_*"])
    assert found[0] == ("sid", 32)
    assert ("phpsessid", 0) in found
    assert found[-2:] == [("print", 0), ("page_*", 0)]


def test_every_name_stands_once_and_in_lower_case() -> None:
    names = [name for name, _ in parameters_of(PARAMETER_LISTS)]
    assert len(names) > 80
    assert len(names) == len(set(names))
    assert names == [name.lower() for name in names]
    prefixes = tuple(name[:-1] for name in names if name.endswith("*"))
    assert [name for name in names if not name.endswith("*") and name.startswith(prefixes)] == []
    dropped_parameters(parameters_of(PARAMETER_LISTS))


@pytest.mark.parametrize(
    ("name", "message"), [("@ads", "@tracking, @session"), ("", "ASCII"), ("*", "ASCII"), ("ü", "ASCII")]
)
def test_what_cannot_be_named(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parameters_of([name])
