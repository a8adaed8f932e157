"""Speed of the stages that remove repeated lines, spans and paragraphs, beside datatrove's sentence deduplication.

    python tests/benchmarks/repeated_text.py --data DIR [--megabytes 8]

DIR has ``domains/*.jsonl.gz`` with a key ``text``. Each figure is all of a stage (emit, reduce, apply) on one thread.
datatrove's three steps read a fifth of a megabyte only: they take long. Times are the processor's, medians of three;
the last line has ``key=value`` figures in MB of UTF-8 text per second.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("POLARS_MAX_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.lines import megabytes_per_second, read_texts

PEER_BYTES = 200_000


def datatrove_sentences(texts: list[str]) -> int:
    """Runs datatrove's three steps with their defaults; returns the number of documents kept."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup import SentenceDedupFilter, SentenceDedupSignature, SentenceFindDedups
    from datatrove.pipeline.dedup.sentence_dedup import SentDedupConfig

    config = SentDedupConfig()
    with tempfile.TemporaryDirectory() as folder:
        read = [Document(text=text, id=str(place)) for place, text in enumerate(texts)]
        SentenceDedupSignature(f"{folder}/a", config=config).run(iter(read), 0, 1)
        SentenceFindDedups(f"{folder}/a", f"{folder}/b", config=config).run(None, 0, 1)  # type: ignore[no-untyped-call]
        return sum(1 for _ in SentenceDedupFilter(f"{folder}/b", config=config).run(iter(read), 0, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--megabytes", type=float, default=8)
    arguments = parser.parse_args()

    from dataeng.stages.dedup.deduplicate_lines import DeduplicateLines
    from dataeng.stages.dedup.deduplicate_paragraphs import DeduplicateParagraphs
    from tests.stages.exchange import run_edits

    texts = read_texts(arguments.data, int(arguments.megabytes * 1e6))
    peer = read_texts(arguments.data, PEER_BYTES)
    stages = {
        "ccnet_lines": DeduplicateLines(),
        "c4_spans": DeduplicateLines(unit="sentence", span=3, normalize="datatrove", min_words=50, min_units=3),
        "dclm_ngrams": DeduplicateParagraphs(),
        "dolma_paragraphs": DeduplicateParagraphs(ngram=None, documents=False, false_positive_rate=1e-6),
    }
    figures: dict[str, float] = {}
    for name, stage in stages.items():
        run_edits(stage, [texts[:2]])
        figures[name] = megabytes_per_second(texts, lambda stage=stage: run_edits(stage, [texts]))  # type: ignore[misc]
    datatrove_sentences(peer[:2])
    figures["datatrove_spans"] = megabytes_per_second(peer, lambda: datatrove_sentences(peer))
    figures["ratio_vs_datatrove"] = figures["c4_spans"] / figures["datatrove_spans"]
    for name, value in figures.items():
        print(f"{name:20s} {value:10.3f}" + (" MB/s" if "ratio" not in name else " times"))
    print(" ".join(f"{name}={value:.3f}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
