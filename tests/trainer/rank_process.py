"""One rank of a run, started by the tests: trains one configuration after the other, and writes down the rows it read.

    python -m tests.trainer.rank_process WORK_ORDER.json

The order is a list of ``{"options": …, "rows": "FILE", "port": …}``; the rows of rank r go to ``FILE.r`` as JSON, one
pair of (domains, rows) a step. Every run meets at a port of its own: a late rank must not meet the run before.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dataeng.formats.mixture import load_mixture
from trainer.config import derive_config
from trainer.data.loader import Batch, Loader
from trainer.loop import train
from trainer.options import Options
from trainer.watching.progress import SilentWatcher


def main() -> None:
    """Carries out a work order."""
    for order in json.loads(Path(sys.argv[1]).read_text()):
        os.environ["MASTER_PORT"] = str(order["port"])
        carry_out(order, os.environ["RANK"])


def carry_out(order: dict[str, Any], rank: str) -> None:
    """Trains as ordered, in this process."""
    options = Options(**{**order["options"], **{k: Path(order["options"][k]) for k in ("mixture", "out", "validate")}})
    manifest = load_mixture(options.mixture)
    with recorded_rows() as steps:
        train(derive_config(options, manifest), manifest, SilentWatcher())
    Path(f"{order['rows']}.{rank}").write_text(json.dumps(steps))


@contextlib.contextmanager
def recorded_rows() -> Iterator[list[Any]]:
    """Gives a list that fills with what loaders hand out."""
    steps: list[Any] = []
    real = Loader.next

    def recorded(self: Loader, step: int) -> Batch:
        batch = real(self, step)
        steps.append([batch.domains_b.tolist(), batch.rows_b.tolist()])
        return batch

    Loader.next = recorded  # type: ignore[method-assign]
    try:
        yield steps
    finally:
        Loader.next = real  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
