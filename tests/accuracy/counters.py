"""Every counter of the signal kernels against its formula in plain Python, on the same words, for all documents.

    python tests/accuracy/counters.py [--data DIR] [--every N] [--workers N]

DIR is a folder in the layout of the test data (default: environment variable DATAENG_TEST_DATA). All texts in it are
read, whatever their length: every ``text``, ``full_text`` and ``articleBody`` of the JSON files in ``domains``,
``dedup``, ``quality``, ``pii``, ``lid``, ``benchmarks`` and ``extraction``, the main text of the HTML pages of
``extraction`` and of the recorded crawl, and the records of its WET file.

* The default counters, on the words that the kernel found (``split``) and on ``str.split`` (``whitespace``), against
  the formulas of datatrove 0.10.1 as ``tests/kernels/signals_reference.py`` writes them.
* The counters of ``signals: all`` against ``tests/kernels/extended_reference.py``: RefinedWeb's and DCLM's line
  rules, RedPajama-V2's and CCNet's counts.
* The formulas themselves, on each 20th document of up to 20,000 characters: against datatrove's own functions, given
  the same words.

The last line counts the documents with any difference; the lines before it name them by counter.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).parents[2]))

ENGLISH = ("the", "be", "to", "of", "and", "that", "have", "with")
FOLDERS = ("domains", "dedup", "quality", "pii", "lid", "benchmarks", "extraction")
FIELDS = ("text", "full_text", "articleBody")
PEER_EVERY, PEER_LARGEST = 20, 20_000
PART_CHARACTERS = 200_000


def read_texts(data: Path) -> Iterator[str]:
    for folder in FOLDERS:
        for path in sorted((data / folder).rglob("*.json*.gz")):
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                rows = list(map(json.loads, lines)) if "jsonl" in path.name else list(json.load(lines).values())
            for row in rows:
                yield from (row[field] for field in FIELDS if isinstance(row.get(field), str))
    yield from page_texts(data)
    yield from wet_texts(data)


def page_texts(data: Path) -> Iterator[str]:
    from resiliparse.extract.html2text import extract_plain_text

    from tests.accuracy.presets import crawl_texts

    for path in sorted((data / "extraction").rglob("*.html.gz")):
        html = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
        yield extract_plain_text(html, main_content=True, alt_texts=False)
    yield from crawl_texts(data)


def wet_texts(data: Path) -> Iterator[str]:
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    for path in sorted((data / "crawl").rglob("*.wet.gz")):
        with path.open("rb") as stream:
            for record in ArchiveIterator(stream, record_types=WarcRecordType.conversion):
                yield record.reader.read().decode("utf-8", "replace")


def kernel_words(text: str) -> list[str]:
    """Returns the words that the kernel cuts a text into: it marks where they start and end."""
    from dataeng.kernels.bitmaps import bitmap_words
    from dataeng.kernels.characters import class_table
    from dataeng.kernels.counters import COUNTERS
    from dataeng.kernels.signal_walk import walk
    from dataeng.kernels.stop_words import stop_word_rows

    encoded = text.encode()
    data = np.frombuffer(encoded, np.uint8)
    hashes, filters, _ = stop_word_rows(1, None, None)
    boundaries = np.zeros(bitmap_words(len(data)), np.uint64)
    cuts = np.empty((2, len(data) + 2), np.int32)
    walk(
        data, 0, len(data), class_table(), True, filters[0], hashes[0], np.zeros(1, np.uint64), np.empty(2, np.uint64),
        np.empty(3, np.int32), boundaries, cuts[0], cuts[1], np.zeros(len(COUNTERS), np.int64),
    )  # fmt: skip
    bits = np.unpackbits(boundaries.view(np.uint8), bitorder="little")[: len(data) + 1]
    ends = [*np.flatnonzero(bits).tolist(), len(data)]
    pieces = (encoded[start:stop].decode() for start, stop in itertools.pairwise(ends))
    return [piece for piece in pieces if piece and not piece.isspace()]


def check(texts: Sequence[str], first: int) -> Counter[str]:
    """Returns how many of the texts differ from us, by counter; the first is number ``first`` of all."""
    from dataeng.kernels.counters import COUNTERS
    from dataeng.kernels.extended_counters import EXTENDED_COUNTERS
    from dataeng.kernels.extended_signals import count_extended_signals
    from dataeng.kernels.signals import count_signals
    from dataeng.kernels.stop_words import stop_word_table
    from dataeng.kernels.text import text_buffers
    from tests.kernels.extended_reference import extended_counts, word_entropy
    from tests.kernels.signals_reference import c4_counts, line_counts, word_counts
    from tests.kernels.words_reference import count_sentences, count_sentences_of_chunks

    buffers = text_buffers(pl.Series(texts, dtype=pl.String))
    options: dict[str, Any] = {"stop_words": stop_word_table({"en": ENGLISH}), "languages": ["en"] * len(texts)}
    split = count_signals(buffers, words="split", **options).tolist()
    whitespace = count_signals(buffers, words="whitespace", **options).tolist()
    extended, measures = count_extended_signals(buffers, **options)
    found: Counter[str] = Counter()
    for i, text in enumerate(texts):
        lines = line_counts(text)
        words = kernel_words(text)
        differing = set()
        for counts, its_words, sentences in (
            (split[i], words, count_sentences),
            (whitespace[i], text.split(), count_sentences_of_chunks),
        ):
            expected = dict.fromkeys(COUNTERS, 0) | word_counts(text, its_words, ENGLISH) | lines
            expected |= c4_counts(text, sentences)
            differing |= {name for name, count in zip(COUNTERS, counts, strict=True) if count != expected[name]}
        expected = extended_counts(text, ENGLISH)
        counts = extended[i].tolist()
        differing |= {name for name, count in zip(EXTENDED_COUNTERS, counts, strict=True) if count != expected[name]}
        if not math.isclose(measures[i, 0], word_entropy(text) if text.split() else 0.0, abs_tol=1e-9):
            differing.add("word_entropy")
        if (first + i) % PEER_EVERY == 0 and len(text) <= PEER_LARGEST:
            found["checked by datatrove's functions"] += 1
            differing |= {"formula: " + name for name in formulas_unlike_datatroves(text, words)}
        found.update(differing)
        found["documents with a difference"] += bool(differing)
    return found


def formulas_unlike_datatroves(text: str, words: list[str]) -> set[str]:
    """Returns the formulas that give another number than datatrove's functions of the same purpose."""
    from datatrove.pipeline.filters import gopher_repetition_filter as peer

    from tests.kernels.signals_reference import line_counts, word_counts

    counts = word_counts(text, words, ENGLISH) | line_counts(text)
    theirs: dict[str, int] = {}
    for n in (2, 3, 4):
        grams = peer.get_n_grams(words, n)
        theirs[f"top_{n}_gram_chars"] = peer.find_top_duplicate(grams) if grams else 0
    for n in range(5, 11):
        # datatrove joins the words of an n-gram without a space. Given words that end in one, it is the same as ours
        # but for their characters, n for each n-gram counted.
        spaced = peer.find_all_duplicate([word + "\0" for word in words], n)
        doubled = peer.find_all_duplicate([word + "\0\0" for word in words], n)
        theirs[f"dup_{n}_gram_chars"] = 2 * spaced - doubled
    theirs["dup_paragraphs"], theirs["dup_paragraph_chars"] = peer.find_duplicates(re.split(r"\n{2,}", text.strip()))
    theirs["dup_break_lines"], theirs["dup_break_line_chars"] = peer.find_duplicates(re.split(r"\n+", text))
    return {name for name, count in theirs.items() if counts[name] != count}


def parts(texts: Sequence[str]) -> Iterator[tuple[list[str], int]]:
    """Yields texts of about `PART_CHARACTERS` together, with the number of the first."""
    part: list[str] = []
    first = size = 0
    for i, text in enumerate(texts):
        part.append(text)
        size += len(text)
        if size >= PART_CHARACTERS:
            yield part, first
            part, first, size = [], i + 1, 0
    if part:
        yield part, first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("DATAENG_TEST_DATA"))
    parser.add_argument("--every", type=int, default=1, help="every n-th document only")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data or DATAENG_TEST_DATA: a folder in the layout of the test data")
    texts = list(read_texts(arguments.data))[:: arguments.every]
    print(f"{len(texts)} documents, {sum(map(len, texts)) / 1e6:.1f} million characters", flush=True)
    found: Counter[str] = Counter()
    with ProcessPoolExecutor(arguments.workers) as pool:
        for one in pool.map(check, *zip(*parts(texts), strict=True)):
            found += one
    by_datatrove = found.pop("checked by datatrove's functions", 0)
    differing = found.pop("documents with a difference", 0)
    for name, count in found.most_common():
        print(f"{count:8} documents: {name}")
    print(
        f"documents={len(texts)} characters={sum(map(len, texts))} differing={differing} "
        f"formulas_checked_by_datatrove={by_datatrove}"
    )


if __name__ == "__main__":
    main()
