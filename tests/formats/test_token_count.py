"""Numbers of tokens as people write them."""

from __future__ import annotations

import pytest

from dataeng.errors import ConfigError
from dataeng.formats.token_count import parse_tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [("500000", 500_000), ("500k", 500_000), ("1.5B", 1_500_000_000), (" 20M ", 20_000_000), ("2t", 2 * 10**12)],
)
def test_numbers_of_tokens(text: str, expected: int) -> None:
    assert parse_tokens(text) == expected


@pytest.mark.parametrize("text", ["", "k", "-5", "1e9", "5 000", "1.B", "10q", "٣k"])
def test_what_is_no_number_of_tokens(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--tokens .*expected a number such as 500000, 500k, 20M or 1\.5B"):
        parse_tokens(text)
