"""Runs a corpus-wide stage in memory, as the engine would: parts, batches, partitions."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from dataeng.document import with_reason_columns
from dataeng.engine.outputs import TaskOutputs
from dataeng.stage import ExchangeStage


def name_of(part: int, row: int) -> str:
    """The id that `frames_of` gives to a document: ``p0r3``."""
    return f"p{part}r{row}"


def frames_of(texts: Sequence[str | None], part: int, batch_documents: int, column: str = "text") -> list[pl.DataFrame]:
    """Returns a part's batches as `ExchangeStage.emit` gets them; ``texts`` are what is in ``column``."""
    rows = {
        "id": [name_of(part, row) for row in range(len(texts))],
        column: list(texts),
        "part": [part] * len(texts),
        "row": list(range(len(texts))),
    }
    schema = {"id": pl.String(), column: pl.String(), "part": pl.UInt32(), "row": pl.UInt32()}
    frame = pl.DataFrame(rows, schema=schema)
    return [frame[start : start + batch_documents] for start in range(0, len(texts), batch_documents)]


def run_exchange(
    stage: ExchangeStage,
    parts: Sequence[Sequence[str | None]],
    folder: Path,
    batch_documents: int = 1000,
    shuffle: int | None = None,
    combine_each_batch: bool = False,
    column: str = "text",
    rejects: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Runs all steps of ``stage`` on a corpus and returns its verdicts, in order of place.

    The corpus is what ``parts`` have in ``column``; ``rejects`` are emitted, too. Artifacts are committed below
    ``folder``. With ``shuffle``, rows reach the reducers in a random order, which is more than the engine ever does
    to them.
    """
    outputs = TaskOutputs(folder)
    tables = [] if rejects is None else [stage.emit_rejects(rejects)]
    for part, texts in enumerate(parts):
        emitted: list[pl.DataFrame] = []
        for frame in frames_of(texts, part, batch_documents, column):
            emitted.append(stage.emit(frame))
            if combine_each_batch:
                emitted = [stage.combine(pl.concat(emitted))]
        if emitted:
            tables.append(stage.combine(pl.concat(emitted)))
    batches = [frames_of(texts, part, batch_documents, column) for part, texts in enumerate(parts)]
    for step in range(len(stage.steps())):
        tables = _run_step(stage, step, tables, batches, outputs, shuffle)
        rounds = 1
        while stage.repeats(step) and any(table.get_column("changed").any() for table in tables):
            tables = [table.drop("changed") for table in tables]
            tables = _run_step(stage, step, tables, batches, outputs, shuffle)
            rounds += 1
            assert rounds < 64, "does not come to an end"
        if stage.repeats(step):
            tables = [table.drop("changed") for table in tables]
    outputs.commit()
    return pl.concat(tables).sort("part", "row") if tables else pl.DataFrame()


class SlicesOf:
    """Implements `dataeng.stage.Slices` for a table, cut into pieces."""

    def __init__(self, table: pl.DataFrame, slice_rows: int) -> None:
        self.table, self.slice_rows, self.num_rows = table, slice_rows, table.height

    def __iter__(self) -> Iterator[pl.DataFrame]:
        yield from self.table.iter_slices(self.slice_rows)

    def collect(self) -> pl.DataFrame | None:
        return self.table


def _run_step(
    stage: ExchangeStage,
    step: int,
    tables: Sequence[pl.DataFrame],
    batches: Sequence[Sequence[pl.DataFrame]],
    outputs: TaskOutputs,
    shuffle: int | None,
) -> list[pl.DataFrame]:
    """Runs one step on all that the step before it sent."""
    whole = pl.concat(tables) if tables else pl.DataFrame()
    if whole.height == 0:
        return []
    assert whole.schema["partition"] == pl.UInt32
    limit = len(batches) if stage.visits(step) else stage.step_partitions(step)
    assert int(whole.get_column("partition").max()) < limit  # type: ignore[arg-type]
    groups = whole.partition_by("partition", maintain_order=True)
    slice_rows = 1000
    if shuffle is not None:
        random.Random(shuffle).shuffle(groups)
        groups = [group.sample(fraction=1.0, shuffle=True, seed=shuffle) for group in groups]
        slice_rows = 1 + shuffle % 7
    results: list[pl.DataFrame] = []
    for group in groups:
        if not stage.visits(step):
            results += stage.reduce_slices(step, SlicesOf(group, slice_rows), outputs)
            continue
        for batch in batches[group.get_column("partition")[0]]:
            if "row" not in group.columns or batch.get_column("row").is_in(group.get_column("row").implode()).any():
                found = stage.visit(step, batch, group)
                results += [found] if isinstance(found, pl.DataFrame) else found
    return [result for result in results if result.height]


def dropped(verdicts: pl.DataFrame) -> dict[str, str]:
    """Returns id of a dropped document → id of the one that was kept."""
    return dict(verdicts.select("id", "kept_id").iter_rows()) if verdicts.height else {}


def run_edits(
    stage: ExchangeStage, parts: Sequence[Sequence[str | None]], batch_documents: int = 1000, shuffle: int | None = None
) -> list[pl.DataFrame]:
    """Runs a stage of one step that edits documents; returns the parts as its `apply` leaves them.

    With ``shuffle``, partitions are reduced in a random order, and their rows come in small pieces.
    """
    batches = [frames_of(texts, part, batch_documents) for part, texts in enumerate(parts)]
    # Each batch is sent by itself, as a task does whose rows do not shrink much.
    emitted = [stage.combine(stage.emit(batch)) for some in batches for batch in some]
    groups = pl.concat(emitted).partition_by("partition", maintain_order=True) if emitted else []
    if shuffle is None:
        groups = sorted(groups, key=lambda group: int(group.item(0, "partition")))
    else:
        random.Random(shuffle).shuffle(groups)
    slice_rows = 1000 if shuffle is None else 1 + shuffle % 7
    reduced = {
        int(group.item(0, "partition")): list(stage.reduce_slices(0, SlicesOf(group, slice_rows), TaskOutputs(Path())))
        for group in groups
    }
    schema = dict(stage.verdict_columns())
    tables = [table.select(*schema) for number in sorted(reduced) for table in reduced[number]]
    verdicts = pl.concat([pl.DataFrame(schema=schema), *tables])
    left = []
    for part, some in enumerate(batches):
        about = verdicts.filter(pl.col("part") == part)
        judged = [with_reason_columns(stage.apply(batch.drop("part"), about)) for batch in some]
        left.append(pl.concat(judged) if judged else pl.DataFrame())
    return left
