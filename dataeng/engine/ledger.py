"""The books: documents in = documents kept + documents dropped by reason, for every stage, task and phase.

Counts are plain numbers that add with ``+``; workers return them, the driver sums and checks them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from dataeng.document import ERROR_PREFIX
from dataeng.errors import LedgerError

MIN_ERRORS = 20
"""Fewer broken documents than this never fail a stage, unless they are all it was given."""


@dataclass
class StageCount:
    """What went into one stage and what came out."""

    documents_in: int = 0
    bytes_in: int = 0
    documents_kept: int = 0
    bytes_kept: int = 0
    dropped: dict[str, list[int]] = field(default_factory=dict)
    """Reason → [documents, bytes]."""
    seconds: float = 0.0

    def __add__(self, other: StageCount) -> StageCount:
        dropped = {reason: list(count) for reason, count in self.dropped.items()}
        for reason, (documents, size) in other.dropped.items():
            total = dropped.setdefault(reason, [0, 0])
            total[0] += documents
            total[1] += size
        return StageCount(
            self.documents_in + other.documents_in,
            self.bytes_in + other.bytes_in,
            self.documents_kept + other.documents_kept,
            self.bytes_kept + other.bytes_kept,
            dropped,
            self.seconds + other.seconds,
        )

    @property
    def documents_dropped(self) -> int:
        return sum(documents for documents, _ in self.dropped.values())

    @property
    def documents_broken(self) -> int:
        """Documents on which the stage raised an error."""
        return sum(documents for reason, (documents, _) in self.dropped.items() if reason.startswith(ERROR_PREFIX))

    def record(self, sizes: pl.Series, reasons: pl.Series, kept_bytes: int, seconds: float) -> None:
        """Counts one batch.

        Args:
          sizes: bytes of every row as the stage got it.
          reasons: the reason of every row afterwards, null where it is kept.
          kept_bytes: bytes of the kept rows afterwards.
          seconds: time the stage took.
        """
        self.documents_in += len(sizes)
        self.bytes_in += int(sizes.sum())
        self.documents_kept += int(reasons.is_null().sum())
        self.bytes_kept += kept_bytes
        self.seconds += seconds
        dropped = pl.DataFrame({"reason": reasons, "size": sizes}).filter(pl.col("reason").is_not_null())
        for reason, documents, size in dropped.group_by("reason").agg(pl.len(), pl.sum("size")).iter_rows():
            count = self.dropped.setdefault(reason, [0, 0])
            count[0] += documents
            count[1] += size

    def to_json(self) -> dict[str, Any]:
        return {**self.__dict__, "dropped": dict(sorted(self.dropped.items())), "seconds": round(self.seconds, 4)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> StageCount:
        return cls(**value)


def total(counts: Iterable[StageCount]) -> StageCount:
    """Returns the sum of counts."""
    return sum(counts, start=StageCount())


def too_many_errors(count: StageCount, max_share: float) -> bool:
    """Whether a stage broke on so many documents that the stage, not the documents, is at fault."""
    broken = count.documents_broken
    return broken > max(MIN_ERRORS, max_share * count.documents_in) or (broken > 1 and broken == count.documents_in)


def check_chain(
    where: str, chain: Iterable[tuple[str, StageCount]], rows_written: int, rejects_written: int | None = None
) -> None:
    """Checks one task's books, stage after stage, and that every document kept or dropped was written somewhere.

    Args:
      chain: what each station counted, in order.
      rows_written: documents in the shard that was written.
      rejects_written: rows in the rejects that were written; None where nothing can be dropped.

    Raises:
      LedgerError: with the stage and the numbers that do not add up.
    """
    chain = list(chain)
    previous: tuple[str, int] | None = None
    for name, count in chain:
        if count.documents_in != count.documents_kept + count.documents_dropped:
            raise LedgerError(
                f"{where}: '{name}' took {count.documents_in} documents and accounts for "
                f"{count.documents_kept} kept + {count.documents_dropped} dropped."
            )
        if previous is not None and previous[1] != count.documents_in:
            raise LedgerError(
                f"{where}: '{previous[0]}' kept {previous[1]} documents, '{name}' took {count.documents_in}."
            )
        previous = (name, count.documents_kept)
    if previous is not None and previous[1] != rows_written:
        raise LedgerError(f"{where}: '{previous[0]}' kept {previous[1]} documents, {rows_written} were written.")
    dropped = sum(count.documents_dropped for _, count in chain)
    if rejects_written is not None and dropped != rejects_written:
        raise LedgerError(f"{where}: {dropped} documents were dropped, {rejects_written} rejects were written.")
