"""Speed of the stages that edit lines, on one thread, beside datatrove's C4 filter on the same texts.

    python tests/benchmarks/lines.py --data DIR [--megabytes 16]

DIR has ``domains/*.jsonl.gz`` with a key ``text``. datatrove reads half a megabyte only: it takes long. Times
are the processor's, medians of three; the last line has ``key=value`` figures in MB of UTF-8 text per second.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("POLARS_MAX_THREADS", "1")

PEER_BYTES = 500_000


def read_texts(folder: Path, num_bytes: int) -> list[str]:
    """Returns texts of all domains, shuffled; each has the same share of the bytes."""
    paths = sorted((folder / "domains").glob("*.jsonl.gz"))
    texts = []
    for path in paths:
        size = 0
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                text = json.loads(line)["text"]
                if text and len(text) < 200_000:
                    texts.append(text)
                    size += len(text.encode())
                if size > num_bytes / len(paths):
                    break
    random.Random(0).shuffle(texts)
    return texts


def megabytes_per_second(texts: list[str], work: Callable[[], Any], repeats: int = 3) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return sum(len(text.encode()) for text in texts) / 1e6 / statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--megabytes", type=float, default=16)
    arguments = parser.parse_args()

    import polars as pl

    from dataeng.stages.dedup.remove_boilerplate import RemoveBoilerplate
    from dataeng.stages.quality.normalize_text import NormalizeText
    from dataeng.stages.quality.remove_lines import PRESETS, RemoveLines

    texts = read_texts(arguments.data, int(arguments.megabytes * 1e6))
    batch = pl.DataFrame({"text": texts}).with_row_index("row").with_columns(
        pl.lit(0, pl.UInt32).alias("part"), pl.col("row").cast(pl.String).alias("id"),
        (pl.col("row") % 20).cast(pl.String).alias("host"),
    )  # fmt: skip
    figures: dict[str, float] = {}
    stages = {preset.replace("@", "_"): RemoveLines(preset=preset) for preset in PRESETS}
    for name, stage in {**stages, "normalize_text": NormalizeText()}.items():
        stage.apply(batch[:2])
        figures[name] = megabytes_per_second(texts, lambda stage=stage: stage.apply(batch))  # type: ignore[misc]
    boilerplate = RemoveBoilerplate()
    figures["boilerplate_emit"] = megabytes_per_second(texts, lambda: boilerplate.emit(batch))
    try:
        from datatrove.data import Document
        from datatrove.pipeline.filters import C4QualityFilter
    except ImportError:
        print("datatrove is not installed: pip install 'dataeng[datatrove]' spacy")
    else:
        some: list[str] = []
        for text in texts:
            if sum(len(taken.encode()) for taken in some) > PEER_BYTES:
                break
            some.append(text)
        peer = C4QualityFilter()
        peer.filter(Document(text="It loads its model first. Then it is fast.", id="0"))
        figures["datatrove_c4"] = megabytes_per_second(
            some, lambda: [peer.filter(Document(text=text, id="0")) for text in some], repeats=1
        )
        figures["ratio_vs_datatrove"] = figures["c4_datatrove"] / figures["datatrove_c4"]
    for name, figure in figures.items():
        print(f"{name:20} {figure:8.1f} {'times' if name.startswith('ratio') else 'MB/s'}")
    print(" ".join(f"{name}={figure:.1f}" for name, figure in figures.items()))


if __name__ == "__main__":
    main()
