"""Precision, recall and F1 of deduplication, ours next to datatrove's, datasketch's and text-dedup's, on the same sets.

    python tests/accuracy/dedup.py [--data DIR] [--text-dedup PYTHON] [--markdown]

Sets:

* labelled: the 656 pages of ``dedup/documents.jsonl.gz``, half of them other editions of the other half;
* licences: the 102 notices of ``dedup/copyright_files.jsonl.gz``, 38 distinct texts with natural near-duplicates;
* planted: 1,500 pages of `tests.benchmarks.dedup_corpus`: copies and editions with 0.2 to 10 % of the words replaced.

Truth is computed for every pair of a set: the Jaccard similarity of the sets of five-word shingles as the labels
define them, words being runs of letters and digits in lower case; texts of fewer words are equal or not. A pair is
found if both are in one cluster, and right if its similarity reaches the threshold. A *false merge* is a pair of one
cluster below it, also where a chain of right pairs leads from one to the other. text-dedup is called with an
interpreter that has it (see `tests.benchmarks.dedup_whole`); datatrove comes with the extra ``datatrove``, datasketch
with ``test``.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import os
import re
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.accuracy.dedup_methods import WITH_THRESHOLD, WITHOUT_THRESHOLD, Method, text_dedup
from tests.benchmarks.dedup_corpus import pages, passages_of, texts_of

THRESHOLDS = (0.7, 0.8, 0.9)
WORD = re.compile(r"\w+")
PLANTED = 1500

Pairs = dict[tuple[int, int], float]


class Score(NamedTuple):
    """What a method found of the pairs of a set."""

    found: int
    right: int
    true: int

    @property
    def precision(self) -> float:
        return self.right / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        return self.right / self.true if self.true else 1.0

    @property
    def f1(self) -> float:
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def similar_pairs(texts: Sequence[str]) -> Pairs:
    """Returns the Jaccard similarity of all pairs that share a shingle."""
    sets = []
    for text in texts:
        words = WORD.findall(text.lower())
        sets.append({tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))} if words else set())
    holders: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, shingles in enumerate(sets):
        for shingle in shingles:
            holders[shingle].append(number)
    shared: Counter[tuple[int, int]] = Counter()
    for numbers in holders.values():
        shared.update(itertools.combinations(numbers, 2))
    return {(a, b): n / (len(sets[a]) + len(sets[b]) - n) for (a, b), n in shared.items()}


def score(clusters: Sequence[int], pairs: Pairs, threshold: float) -> Score:
    true = {pair for pair, similarity in pairs.items() if similarity >= threshold}
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for text, cluster in enumerate(clusters):
        groups[cluster].append(text)
    found = {pair for group in groups.values() for pair in itertools.combinations(sorted(group), 2)}
    return Score(len(found), len(found & true), len(true))


def read(file: Path) -> list[dict[str, str]]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def sets_of(data: Path) -> dict[str, list[str]]:
    source = pages(passages_of(texts_of(data)), seed=4)
    return {
        "labelled": [row["text"] for row in read(data / "dedup" / "documents.jsonl.gz")],
        "licences": [row["text"] for row in read(data / "dedup" / "copyright_files.jsonl.gz")],
        "planted": list(itertools.islice(source, PLANTED)),
    }


def check_labels(data: Path, pairs: Pairs) -> None:
    """Raises `SystemExit` if the labels of the set say something else than our own computation of the truth."""
    place = {row["id"]: number for number, row in enumerate(read(data / "dedup" / "documents.jsonl.gz"))}
    for label in read(data / "dedup" / "pairs.jsonl.gz"):
        low, high = sorted((place[label["a"]], place[label["b"]]))
        if abs(pairs.get((low, high), 0.0) - float(label["jaccard5"])) > 1e-4:
            sys.exit(f"{label['a']} and {label['b']}: {pairs.get((low, high), 0.0)} is not {label['jaccard5']}")


Row = tuple[str, float, str, Score]


def measure(
    texts: Sequence[str], pairs: Pairs, methods: dict[str, Method], folder: Path
) -> list[tuple[str, float, Score]]:
    """Returns method, threshold and score; what has no threshold of its own is run once."""
    scores = []
    for number, (name, method) in enumerate(methods.items()):
        own = name in WITH_THRESHOLD
        clusters: list[int] = []
        for threshold in THRESHOLDS:
            if own or not clusters:
                clusters = method(texts, threshold, folder / f"{number}-{threshold}")
            scores.append((name, threshold, score(clusters, pairs, threshold)))
    return scores


def print_table(rows: Sequence[Row], markdown: bool) -> None:
    heads = ("set", "similarity", "method", "pairs", "found", "false merges", "precision", "recall", "F1")
    line = "| {:9} | {:>10} | {:33} | {:>7} | {:>7} | {:>12} | {:>9} | {:>6} | {:>5} |"
    if not markdown:
        line = line.replace("|", "")
    print(line.format(*heads))
    if markdown:
        print("|---|---:|---|---:|---:|---:|---:|---:|---:|")
    for name, threshold, method, found in rows:
        numbers = f"{found.precision:.3f}", f"{found.recall:.3f}", f"{found.f1:.3f}"
        print(line.format(name, threshold, method, found.true, found.found, found.found - found.right, *numbers))


def figures(rows: Sequence[Row]) -> dict[str, float]:
    """Returns F1 and false merges at 0.7 over all sets together, per method."""
    totals: dict[str, Score] = {}
    for _, threshold, method, found in rows:
        if threshold == THRESHOLDS[0]:
            before = totals.get(method, Score(0, 0, 0))
            totals[method] = Score(*(a + b for a, b in zip(before, found, strict=True)))
    result = {}
    for method, total in totals.items():
        key = re.sub(r"\W+", "_", method.lower()).strip("_")
        result[f"f1_{key}"] = total.f1
        result[f"false_merges_{key}"] = float(total.found - total.right)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("DATAENG_TEST_DATA"))
    parser.add_argument(
        "--text-dedup", default=os.environ.get("TEXT_DEDUP_PYTHON"), help="a Python that has text-dedup"
    )
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data or DATAENG_TEST_DATA: a folder in the layout of the test data")
    data = Path(arguments.data)
    methods = {**WITHOUT_THRESHOLD, **WITH_THRESHOLD}
    if arguments.text_dedup:
        methods["text-dedup, MinHash 14x8"] = text_dedup(arguments.text_dedup)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="dedup-accuracy-") as folder:
        for name, texts in sets_of(data).items():
            pairs = similar_pairs(texts)
            if name == "labelled":
                check_labels(data, pairs)
            measured = measure(texts, pairs, methods, Path(folder) / name)
            rows += [(name, threshold, method, found) for method, threshold, found in measured]
    rows.sort(key=lambda row: (row[0], row[1]))
    print_table(rows, arguments.markdown)
    print(" ".join(f"{name}={value:.3f}" for name, value in figures(rows).items()))


if __name__ == "__main__":
    main()
