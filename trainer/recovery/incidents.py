"""Steps that were not taken: what happened, and which documents were in them.

    incidents.jsonl       one line an incident: step, what, action, and the mean loss of each domain's rows
    quarantine.parquet    the documents of its suspicious rows: step, domain, row_loss, id, url, host, source …

`dataeng remove RUN --ids TRAINING/quarantine.parquet` takes them out of the packs.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dataeng.formats.atomic import write_bytes
from dataeng.formats.pack_documents import document_rows
from trainer.data.rows import MixtureRows
from trainer.recovery.spikes import Spike
from trainer.step import Floats

Ints = npt.NDArray[np.int64]

COLUMNS = ("id", "url", "host", "source", "source_offset", "language")
#: Rows whose loss is so many robust deviations above the step's median are suspected; without any, all rows are.
SUSPICIOUS = 3.0


def suspicious_rows(row_losses: Floats) -> list[int]:
    """Returns the rows of a step that stand out: losses that are not finite, or far above the others'."""
    finite = np.isfinite(row_losses)
    if not finite.all():
        return np.flatnonzero(~finite).tolist()
    median = float(np.median(row_losses))
    deviation = max(1.4826 * float(np.median(np.abs(row_losses - median))), 0.01 * abs(median), 1e-12)
    found = np.flatnonzero(row_losses > median + SUSPICIOUS * deviation).tolist()
    return found or list(range(len(row_losses)))


class Incidents:
    """Writes both files of a run. Incidents of steps that are run again go (`discard_after`)."""

    def __init__(self, folder: Path, rows: MixtureRows) -> None:
        self.rows = rows
        self.lines, self.documents = folder / "incidents.jsonl", folder / "quarantine.parquet"

    def add(self, spike: Spike, action: str, domains: Ints, rows: Ints, row_losses: Floats) -> int:
        """Records an incident and returns how many documents are under suspicion.

        The step's rows of all ranks are given by domain, row of the domain and mean loss, [B] each.
        """
        documents = self._documents(spike.step, domains, rows, row_losses)
        by_domain = {
            name: _plain(np.mean(row_losses[domains == number]))
            for number, name in enumerate(self.rows.names)
            if number in domains
        }
        line = {"step": spike.step, "what": str(spike), "action": action, "losses": by_domain}
        line["documents"] = len(documents)
        self._write([*self._read(), line], pl.concat([self._quarantine(), documents]))
        return len(documents)

    def discard_after(self, step: int, left_out: Collection[int] = ()) -> None:
        """Forgets incidents of later steps: those that are run again, not those that the run will leave out."""
        lines = self._read()
        steps = {line["step"] for line in lines}
        kept = {found for found in steps if found <= step or found in left_out}
        if kept != steps:
            documents = self._quarantine().filter(pl.col("step").is_in(sorted(kept)))
            self._write([line for line in lines if line["step"] in kept], documents)

    def _documents(self, step: int, domains: Ints, rows_b: Ints, row_losses: Floats) -> pl.DataFrame:
        found: dict[tuple[int, Path, str, int], float] = {}
        for i in suspicious_rows(row_losses):
            domain, row = int(domains[i]), int(rows_b[i])
            for source in self.rows.sources(domain, row):
                key = (domain, source.pack, source.shard, source.document)
                found[key] = float(row_losses[i])
        shards = {(shard.folder, shard.name): shard for shard in self.rows.reader.shards}
        rows: list[dict[str, Any]] = []
        for (domain, pack, shard_name, document), loss in found.items():
            known = document_rows(shards[pack, shard_name], [document])[0]
            rows.append(
                {"step": step, "domain": self.rows.names[domain], "row_loss": loss, "pack": str(pack)}
                | {"shard": shard_name, "document": document}
                | {name: None if known.get(name) is None else str(known[name]) for name in COLUMNS}
            )
        return pl.DataFrame(rows, _SCHEMA)

    def _read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines.read_text().splitlines()] if self.lines.exists() else []

    def _quarantine(self) -> pl.DataFrame:
        return pl.read_parquet(self.documents) if self.documents.exists() else pl.DataFrame(schema=_SCHEMA)

    def _write(self, lines: Sequence[dict[str, Any]], documents: pl.DataFrame) -> None:
        buffer = io.BytesIO()
        documents.write_parquet(buffer)
        write_bytes(self.documents, buffer.getvalue())
        write_bytes(self.lines, "".join(json.dumps(line) + "\n" for line in lines).encode())


def _plain(value: Any) -> float | str:
    number = float(value)
    return number if math.isfinite(number) else str(number)  # JSON has no NaN


_SCHEMA: dict[str, pl.DataType] = {
    "step": pl.Int64(),
    "domain": pl.String(),
    "row_loss": pl.Float64(),
    "pack": pl.String(),
    "shard": pl.String(),
    "document": pl.Int64(),
    **{name: pl.String() for name in COLUMNS},
}
