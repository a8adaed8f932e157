"""Tables for other programs: CSV, or one JSON object a line."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from decimal import Decimal
from typing import TextIO

from dataeng.errors import ConfigError, nearest
from dataeng.report.visible import visible

FORMATS = ("table", "csv", "json")


def check_format(output: str) -> None:
    """Raises `ConfigError` unless ``output`` is one of `FORMATS`."""
    if output not in FORMATS:
        raise ConfigError(f"unknown format '{output}'{nearest(output, FORMATS)}")


def write_plain(stream: TextIO, columns: Sequence[str], rows: Sequence[Sequence[object]], output: str) -> None:
    """Writes rows as ``csv`` or ``json``."""

    def plain(value: object) -> object:
        return float(value) if isinstance(value, Decimal) else str(value)

    if output == "json":
        for row in rows:
            stream.write(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False, default=plain) + "\n")
        return
    if stream.isatty():  # crawled text may hold what a terminal would obey
        rows = [tuple(visible(cell) if isinstance(cell, str) else cell for cell in row) for row in rows]
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
