"""Runs a corpus-wide stage in memory, as the engine would: parts, batches, partitions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from dataeng.engine.outputs import TaskOutputs
from dataeng.stage import ExchangeStage


def name_of(part: int, row: int) -> str:
    """The id that `frames_of` gives to a document: ``p0r3``."""
    return f"p{part}r{row}"


def frames_of(texts: Sequence[str | None], part: int, batch_documents: int) -> list[pl.DataFrame]:
    """Returns a part's batches as `ExchangeStage.emit` gets them."""
    rows = {
        "id": [name_of(part, row) for row in range(len(texts))],
        "text": list(texts),
        "part": [part] * len(texts),
        "row": list(range(len(texts))),
    }
    schema = {"id": pl.String(), "text": pl.String(), "part": pl.UInt32(), "row": pl.UInt32()}
    frame = pl.DataFrame(rows, schema=schema)
    return [frame[start : start + batch_documents] for start in range(0, len(texts), batch_documents)]


def run_exchange(
    stage: ExchangeStage,
    parts: Sequence[Sequence[str | None]],
    folder: Path,
    batch_documents: int = 1000,
    shuffle: int | None = None,
    combine_each_batch: bool = False,
) -> pl.DataFrame:
    """Runs all steps of ``stage`` on a corpus and returns its verdicts, in order of place.

    Artifacts are committed below ``folder``. With ``shuffle``, rows reach the reducers in a random order, which is
    more than the engine ever does to them.
    """
    outputs = TaskOutputs(folder)
    tables = []
    for part, texts in enumerate(parts):
        emitted: list[pl.DataFrame] = []
        for frame in frames_of(texts, part, batch_documents):
            emitted.append(stage.emit(frame))
            if combine_each_batch:
                emitted = [stage.combine(pl.concat(emitted))]
        if emitted:
            tables.append(stage.combine(pl.concat(emitted)))
    for step in range(len(stage.steps())):
        results = []
        whole = pl.concat(tables) if tables else pl.DataFrame()
        if whole.height:
            assert whole.schema["partition"] == pl.UInt32
            assert int(whole.get_column("partition").max()) < stage.step_partitions(step)  # type: ignore[arg-type]
            groups = whole.partition_by("partition", maintain_order=True)
            if shuffle is not None:
                random.Random(shuffle).shuffle(groups)
                groups = [group.sample(fraction=1.0, shuffle=True, seed=shuffle) for group in groups]
            results = [stage.reduce(step, group, outputs) for group in groups]
        tables = [result for result in results if result.height]
    outputs.commit()
    return pl.concat(tables).sort("part", "row") if tables else pl.DataFrame()


def dropped(verdicts: pl.DataFrame) -> dict[str, str]:
    """Returns id of a dropped document → id of the one that was kept."""
    return dict(verdicts.select("id", "kept_id").iter_rows()) if verdicts.height else {}
