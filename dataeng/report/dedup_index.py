"""What a dedup index holds, for people."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dataeng.errors import FormatError
from dataeng.formats.dedup_index import Index, Segment, damages, load_index, strangers
from dataeng.report.terminal import size


def print_index(console: Console, path: Path, index: Index | None = None) -> None:
    """Prints the method, its parameters, and the segments in order."""
    index = index or load_index(path)
    options = ", ".join(f"{name} {value}" for name, value in index.parameters.items())
    console.print(escape(f"{path}: {index.method} ({options})"), highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("segment", "documents", "text", "on disk", "share of text"):
        table.add_column(column, justify="left" if column == "segment" else "right", overflow="fold")
    for segment in index.segments:
        for number, origin in enumerate(segment.origins):
            disk = _bytes(segment) if number == len(segment.origins) - 1 else None
            text = sum(other.text_bytes for other in segment.origins)
            table.add_row(
                escape(origin.name),
                f"{origin.documents:,}",
                size(origin.text_bytes),
                size(disk) if disk is not None else "with the next",
                f"{disk / text:.0%}" if disk is not None and text else "",
            )
    console.print(table)


def _bytes(segment: Segment) -> int:
    return sum(file.size_bytes for file in segment.files)


def verify_index(console: Console, path: Path) -> None:
    """Hashes every file of an index and says what it found.

    Raises:
      FormatError: files are missing or altered; names them with their segments.
    """
    index = load_index(path)
    for folder in strangers(path, index):
        console.print(
            f"{escape(str(folder))} is not named by the manifest: a run adds it just now, or was stopped while it did.",
            highlight=False,
            soft_wrap=True,
        )
    found = list(damages(path, index.segments, thorough=True))
    if found:
        raise FormatError(
            f"the dedup index at {path} is damaged: {'; '.join(found)}. Run the pipelines that added the segments "
            "again: they restore them."
        )
    files = sum(len(segment.files) for segment in index.segments)
    total = sum(_bytes(segment) for segment in index.segments)
    console.print(
        f"{escape(str(path))} is whole: {len(index.origins)} segments, {files} files, {size(total)}.", highlight=False
    )
