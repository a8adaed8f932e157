"""Small stages for testing the engine: copied beside a pipeline file, and named there by dotted path."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import PrivateAttr

from dataeng.document import IDENTITY, document_id, drop_where
from dataeng.formats.atomic import write_bytes
from dataeng.stage import Columns, ExchangeStage, InputFile, OutputFiles, RowStage, Sink, Slices, Source, StartAgain


class Lines(Source):
    """Every line of a text file is a document."""

    folder: str = "input"
    batch_documents: int = 7

    def columns(self) -> Columns:
        return Columns(adds={"text": pl.String()})

    def files(self, base: Path) -> list[InputFile]:
        found = sorted((base / self.folder).glob("*.txt"))
        return [InputFile(str(p), p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in found]

    def read(self, file: InputFile) -> Iterator[pl.DataFrame]:
        lines = Path(file.path).read_text().splitlines()
        for start in range(0, len(lines), self.batch_documents):
            texts = lines[start : start + self.batch_documents]
            offsets = range(start, start + len(texts))
            frame = pl.DataFrame({"text": texts, "source_offset": list(offsets)}, schema_overrides={"text": pl.String})
            ids = [document_id(file.name, offset, "", "") for offset in offsets]
            yield frame.with_columns(
                pl.Series("id", ids),
                *(pl.lit(None, pl.String).alias(c) for c in ("url", "host", "date")),
                pl.lit(file.name).alias("source"),
                pl.lit(self.domain).alias("domain"),
            ).select(*IDENTITY, "text")


class DropContaining(RowStage):
    """Drops documents that contain a word."""

    word: str = "bad"
    reason_name: str = "contains_word"

    def apply(self, batch: pl.DataFrame) -> pl.DataFrame:
        return drop_where(batch, pl.col("text").str.contains(self.word, literal=True), self.reason_name)


class Measure(RowStage):
    """Adds a signal."""

    def columns(self) -> Columns:
        return Columns(reads=("text",), signals={"toy_length": pl.Int64()})

    def apply(self, batch: pl.DataFrame) -> pl.DataFrame:
        return batch.with_columns(pl.col("text").str.len_chars().cast(pl.Int64).alias("toy_length"))


class Upper(RowStage):
    """Edits text."""

    def apply(self, batch: pl.DataFrame) -> pl.DataFrame:
        return batch.with_columns(pl.col("text").str.to_uppercase())


class Fragile(RowStage):
    """Raises, sleeps or dies on documents that say so."""

    def apply(self, batch: pl.DataFrame) -> pl.DataFrame:
        for text in batch.get_column("text"):
            if "raise" in text:
                raise ValueError(f"cannot take {text!r}")
            if "sleep" in text:
                time.sleep(0.2)
            if text.startswith("die once "):  # and leave a mark, so that the next attempt survives
                marker = Path(text.removeprefix("die once "))
                if not marker.exists():
                    marker.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
            elif "die" in text:
                os.kill(os.getpid(), signal.SIGKILL)
        return batch


class LosesRows(RowStage):
    """Breaks the contract."""

    def apply(self, batch: pl.DataFrame) -> pl.DataFrame:
        return batch.filter(~pl.col("text").str.contains("bad"))


class Undeclared(RowStage):
    """Breaks the contract."""

    def apply(self, batch: pl.DataFrame) -> pl.DataFrame:
        return batch.with_columns(pl.lit(1).alias("surprise"))


class KeepFirst(ExchangeStage):
    """Exact deduplication by text, the slow and obvious way, in two steps."""

    partitions: int = 3

    def columns(self) -> Columns:
        return Columns(reads=("id", "text"))

    def steps(self) -> tuple[str, ...]:
        return ("spread", "judge")

    def emit(self, batch: pl.DataFrame) -> pl.DataFrame:
        key = pl.col("text").str.len_bytes() % self.partitions
        return batch.select("part", "row", "id", "text", key.cast(pl.UInt32).alias("partition"))

    def reduce(self, step: int, table: pl.DataFrame, outputs: OutputFiles) -> pl.DataFrame:
        if step == 0:
            return table.with_columns((pl.lit(self.partitions - 1, pl.UInt32) - pl.col("partition")).alias("partition"))
        seen: dict[str, str] = {}
        rows: list[dict[str, Any]] = []
        for row in table.sort("part", "row").iter_rows(named=True):
            if row["text"] in seen:
                kept = seen[row["text"]]
                rows.append(
                    {**{k: row[k] for k in ("part", "row", "id")}, "kept_id": kept, "reason": "again", "detail": kept}
                )
            seen.setdefault(row["text"], row["id"])
        schema = {
            "part": pl.UInt32,
            "row": pl.UInt32,
            "id": pl.String,
            "kept_id": pl.String,
            "reason": pl.String,
            "detail": pl.String,
        }
        return pl.DataFrame(rows, schema=schema, orient="row")


class JudgesTwice(KeepFirst):
    """Breaks the contract."""

    def reduce(self, step: int, table: pl.DataFrame, outputs: OutputFiles) -> pl.DataFrame:
        result = super().reduce(step, table, outputs)
        return result if step == 0 else pl.concat([result, result])


class JudgesNobody(KeepFirst):
    """Breaks the contract."""

    def reduce(self, step: int, table: pl.DataFrame, outputs: OutputFiles) -> pl.DataFrame:
        result = super().reduce(step, table, outputs)
        return result if step == 0 else result.with_columns(pl.col("row") + 1000)


class Collect(Sink):
    """Writes one text file per part and, at the end, a list of them."""

    def open(self, part: int, outputs: OutputFiles) -> CollectWriter:
        return CollectWriter(part, outputs)

    def finish(self, run_dir: Path, shards: list[dict[str, Any]]) -> list[Path]:
        path = run_dir / "collected" / "list.txt"
        write_bytes(path, "\n".join(f"{shard['name']} {shard['lines']}" for shard in shards).encode())
        return [path]


class CollectElsewhere(Collect):
    """A sink of another kind, with files of its own."""

    def open(self, part: int, outputs: OutputFiles) -> CollectWriter:
        return CollectWriter(part, outputs, "elsewhere")

    def finish(self, run_dir: Path, shards: list[dict[str, Any]]) -> list[Path]:
        return []


class CollectAtSecondAttempt(Collect):
    """A sink that finds out in the middle of part 0 that it has to begin anew, as often as ``times``."""

    times: int = 1
    _begun: list[int] = PrivateAttr(default_factory=list)

    def open(self, part: int, outputs: OutputFiles) -> CollectWriter:
        self._begun.append(part)
        again = part == 0 and self._begun.count(0) <= self.times
        return InterruptedWriter(part, outputs) if again else CollectWriter(part, outputs)


class CollectWriter:
    def __init__(self, part: int, outputs: OutputFiles, folder: str = "collected") -> None:
        self.name, self.lines = f"{part:05d}.txt", 0
        self.file = outputs.create(f"{folder}/{self.name}")

    def write(self, batch: pl.DataFrame) -> None:
        self.lines += batch.height
        self.file.write("".join(f"{text}\n" for text in batch.get_column("text")).encode())

    def close(self) -> list[dict[str, Any]]:
        return [{"name": self.name, "lines": self.lines}]


class InterruptedWriter(CollectWriter):
    def write(self, batch: pl.DataFrame) -> None:
        if self.lines:
            raise StartAgain("the second batch does not fit the first")
        super().write(batch.with_columns(pl.lit("wrong").alias("text")))


class CountInitials(ExchangeStage):
    """Edits documents by what the whole corpus says: appends how many documents begin with the same character."""

    partitions: int = 2
    broken: bool = False

    def columns(self) -> Columns:
        return Columns(reads=("text",), signals={"toy_same": pl.Int64()})

    def verdict_columns(self) -> dict[str, pl.DataType]:
        return {"part": pl.UInt32(), "initial": pl.String()}

    def steps(self) -> tuple[str, ...]:
        return ("count",)

    def emit(self, batch: pl.DataFrame) -> pl.DataFrame:
        return batch.select(
            "part", pl.col("text").str.slice(-1).alias("initial"), pl.lit(1, pl.UInt32).alias("partition")
        )

    def reduce(self, step: int, table: pl.DataFrame, outputs: OutputFiles) -> pl.DataFrame:
        counted = table.group_by("initial").agg(pl.len().cast(pl.Int64).alias("same"))
        verdicts = table.select("part", "initial").unique().join(counted, on="initial").sort("part", "initial")
        return verdicts.drop("initial") if self.broken else verdicts

    def apply(self, batch: pl.DataFrame, verdicts: pl.DataFrame) -> pl.DataFrame:
        initial = pl.col("text").str.slice(-1).alias("initial")
        if verdicts.height == 0:
            return batch.with_columns(pl.lit(None, pl.Int64).alias("toy_same"))
        joined = batch.with_columns(initial).join(verdicts, on="initial", how="left", maintain_order="left")
        edited = joined.with_columns(
            pl.col("same").alias("toy_same"), pl.format("{} x{}", "text", "same").alias("text")
        )
        return drop_where(edited.drop("initial", "same", "part"), pl.col("toy_same") == 3, "three")


class Wander(ExchangeStage):
    """Sends every document from partition to partition, ``row % 4`` hops, looks at it again, and drops odd lengths."""

    partitions: int = 5

    def columns(self) -> Columns:
        return Columns(reads=("id", "text"))

    def steps(self) -> tuple[str, ...]:
        return ("walk", "look", "judge")

    def repeats(self, step: int) -> bool:
        return step == 0

    def visits(self, step: int) -> bool:
        return step == 1

    def emit(self, batch: pl.DataFrame) -> pl.DataFrame:
        hops = (pl.col("row") % 4).cast(pl.Int64).alias("hops")
        return batch.select("part", "row", hops, pl.lit(0, pl.Int64).alias("walked")).with_columns(
            self._to(pl.col("part"))
        )

    def reduce_slices(self, step: int, slices: Slices, outputs: OutputFiles) -> Iterator[pl.DataFrame]:
        for table in slices:
            if step == 2:
                odd = table.filter(pl.col("length") % 2 == 1)
                reason = pl.lit("odd").alias("reason"), pl.format("{} hops", "walked").alias("detail")
                yield odd.select("part", "row", *reason)
                continue
            moving = table.filter(pl.col("hops") > 0)
            fails_at = int(os.environ.get("TOY_FAILS_AT_HOP", "-1"))
            if moving.select((pl.col("walked") == fails_at).any()).item():
                raise OSError("a bridge is out")
            moved = moving.with_columns(pl.col("hops") - 1, pl.col("walked") + 1)
            moved = moved.with_columns(self._to(pl.col("partition") + 1), (pl.col("hops") > 0).alias("changed"))
            arrived = table.filter(pl.col("hops") == 0).with_columns(pl.lit(False).alias("changed"))
            # What goes home goes by part: the next step looks at the documents.
            home = pl.when(pl.col("hops") == 0).then("part").otherwise("partition").cast(pl.UInt32).alias("partition")
            for piece in (moved, arrived):
                yield piece.with_columns(home)

    def visit(self, step: int, batch: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
        length = pl.col("text").str.len_chars().cast(pl.Int64).alias("length")
        found = rows.join(batch.select("row", length), on="row", how="inner", maintain_order="left")
        return found.with_columns(self._to(pl.col("length")))

    def _to(self, number: pl.Expr) -> pl.Expr:
        return (number % self.partitions).cast(pl.UInt32).alias("partition")
