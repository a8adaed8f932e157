"""Training a byte-level BPE, beside the libraries that train one: time, and whether the merges are the same.

    python tests/benchmarks/tokenizer_training.py --data DIR [--megabytes 50] [--vocab-size 32000] [--repeats 3]

DIR has ``**/*.jsonl.gz``; a row's text is its ``text``, or else its long strings. Everybody gets the same lines with
their newlines (gigabpe reads a file line by line), GPT-2's pre-tokenization and one thread. Times are the processor's,
so that what else the machine does counts little; but caches are shared, and on a busy machine every figure is worse.

``gigabpe`` and ``rustbpe`` are measured if they are installed. gigabpe has no initial alphabet, so that its merges are
compared with those of ``tokenizers`` without one; rustbpe cuts and orders otherwise and cannot be compared.
``ratio_vs_best`` is against the fastest library whose merges are those of ``tokenizers``.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

for variable in ("POLARS_MAX_THREADS", "RAYON_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

Merges = list[tuple[str, str]]
NAMES_WITHOUT_TEXT = ("truth", "pairs")
LONG = 40


def load_lines(folder: Path, megabytes: float) -> list[str]:
    """Returns lines of real text, in a random order of documents, up to a size."""
    texts = []
    for path in sorted(folder.glob("**/*.jsonl.gz")):
        if path.name.startswith(NAMES_WITHOUT_TEXT):
            continue
        with gzip.open(path, "rt") as rows:
            for row in map(json.loads, rows):
                if isinstance(row, dict):
                    long = [value for value in row.values() if isinstance(value, str) and len(value) > LONG]
                    texts.append(row["text"] if isinstance(row.get("text"), str) else "\n".join(long))
    random.Random(0).shuffle(texts)
    lines: list[str] = []
    size = 0.0
    for text in texts:
        # Splitting at more than \n would leave a different text to those who split at \n only.
        some = [line + "\n" for line in text.replace("\r", " ").split("\n") if line]
        lines += some
        size += sum(len(line.encode()) for line in some) / 1e6
        if size >= megabytes:
            break
    return lines


def train_ours(lines: list[str], vocab_size: int) -> Merges:
    import polars as pl

    from dataeng.stages.tokens.tokenizer_training import Recipe, train_tokenizer

    content = train_tokenizer(pl.Series(lines), Recipe(vocab_size=vocab_size, special_tokens=()))
    return [tuple(pair) for pair in json.loads(content)["model"]["merges"]]


def train_library(lines: list[str], vocab_size: int, every_byte: bool = True) -> Merges:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet()) if every_byte else []
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, min_frequency=2, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(lines, trainer)
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


def train_gigabpe(file: Path, vocab_size: int) -> Merges:
    import gigabpe

    _, merges = gigabpe.train_bpe(
        [str(file)], vocab_size=vocab_size, min_frequency=2, pretokenizer="bytelevel", threads=1
    )
    return [tuple(pair) for pair in merges]


def train_rustbpe(lines: list[str], vocab_size: int) -> Merges:
    import rustbpe

    gpt2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+"  # its expressions have no look-ahead
    rustbpe.Tokenizer().train_from_iterator(iter(lines), vocab_size=vocab_size, pattern=gpt2)
    return []


def difference(merges: Merges, expected: Merges) -> str:
    for number, (one, other) in enumerate(zip(merges, expected, strict=False)):
        if one != other:
            return f"differ from number {number:,}"
    return "the same" if len(merges) == len(expected) else f"{len(merges):,} instead of {len(expected):,}"


def measure(lines: list[str], file: Path, vocab_size: int, repeats: int) -> tuple[dict[str, float], dict[str, str]]:
    """Returns the median of each library's seconds, and how its merges compare."""
    rows: dict[str, Callable[[], Merges]] = {
        "dataeng": lambda: train_ours(lines, vocab_size),
        "tokenizers": lambda: train_library(lines, vocab_size),
        "gigabpe": lambda: train_gigabpe(file, vocab_size),
        "rustbpe": lambda: train_rustbpe(lines, vocab_size),
    }
    missing = [name for name in ("gigabpe", "rustbpe") if not importlib.util.find_spec(name)]
    seconds: dict[str, list[float]] = {name: [] for name in rows if name not in missing}
    merges: dict[str, Merges] = {}
    train_ours(lines[:1000], 1000)  # compiles, or loads what was compiled
    for turn in range(repeats):  # in turns, so that a busy moment does not meet one alone
        for name in seconds:
            if name == "tokenizers" and turn > 0:
                continue  # half a minute; nobody is near it
            start = time.process_time()
            merges[name] = rows[name]()
            seconds[name].append(time.process_time() - start)
    compared = {"tokenizers": "the same", "dataeng": difference(merges["dataeng"], merges["tokenizers"])}
    if "gigabpe" in merges:
        compared["gigabpe"] = difference(merges["gigabpe"], train_library(lines, vocab_size, every_byte=False))
    return {name: statistics.median(times) for name, times in seconds.items()}, compared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--megabytes", type=float, default=50)
    parser.add_argument("--vocab-size", type=int, default=32_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    lines = load_lines(options.data, options.megabytes)
    megabytes = sum(len(line.encode()) for line in lines) / 1e6
    load = os.getloadavg()[0]
    print(f"{megabytes:.1f} MB in {len(lines):,} lines, {options.vocab_size:,} tokens, load {load:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "lines.txt"
        file.write_text("".join(lines))
        medians, compared = measure(lines, file, options.vocab_size, options.repeats)
    print(f"\n{'':<12} {'seconds':>9} {'MB/s':>7}  merges")
    for name, median in sorted(medians.items(), key=lambda item: item[1]):
        print(f"{name:<12} {median:>9.2f} {megabytes / median:>7.1f}  {compared.get(name, 'not comparable')}")
    equal = [name for name in medians if name != "dataeng" and compared.get(name) == "the same"]
    best = min(equal, key=lambda name: medians[name])
    figures = {f"{name}_seconds": f"{median:.2f}" for name, median in medians.items()}
    figures |= {
        "merges_equal": str(compared["dataeng"] == "the same").lower(),
        "best": best,
        "ratio_vs_best": f"{medians[best] / medians['dataeng']:.2f}",
        "ratio_vs_tokenizers": f"{medians['tokenizers'] / medians['dataeng']:.2f}",
        "load": f"{max(load, os.getloadavg()[0]):.1f}",
    }
    print("\n" + " ".join(f"{key}={value}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
