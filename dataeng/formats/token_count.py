"""Numbers of tokens as people write them."""

from __future__ import annotations

import re

from dataeng.errors import ConfigError

UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


def parse_tokens(text: str) -> int:
    """Parses the value of an option ``--tokens``: ``500000``, ``500k``, ``1.5B``. Raises `ConfigError`."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([kmbt]?)", text.strip().lower())
    if not match:
        raise ConfigError(f"--tokens {text}: expected a number such as 500000, 500k, 20M or 1.5B.")
    return round(float(match[1]) * UNITS[match[2]])
