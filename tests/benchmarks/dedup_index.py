"""What a dedup index weighs, and what it costs to deduplicate a crawl against it while it grows tenfold.

    python tests/benchmarks/dedup_index.py [--documents 1000] [--times 10]

Documents are of random words; half of the new crawl are edited copies of old ones. Times are CPU seconds of a process.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

from dataeng.formats.dedup_index import load_index
from tests.stages.dedup.crawls import Crawls

WORDS = [f"{a}{b}{c}{d}" for a in "bdfgklmn" for b in "aeiou" for c in "lmnrstz" for d in "aeiou"]


def page(seed: int, num_words: int = 600) -> str:
    generator = random.Random(seed)
    return " ".join(generator.choices(WORDS, k=num_words))


def edited(text: str, seed: int) -> str:
    words = text.split()
    for at in random.Random(seed).sample(range(len(words)), 5):
        words[at] = "edited"
    return " ".join(words)


def seconds(crawls: Crawls, name: str, index: str | None) -> float:
    start = time.process_time()
    crawls.run(name, index)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="not used: the documents are made")
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--times", type=int, default=10)
    given = parser.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        Crawls(Path(folder) / "warm").run_dir("x")
        print(f"{'old documents':>14} {'index':>10} {'per doc':>9} {'of text':>8} {'adding':>9} {'new crawl':>10}")
        for factor in (0, 1, given.times):
            crawls = Crawls(Path(folder) / f"x{factor}")
            num_old = given.documents * factor
            crawls.write("old", [page(seed) for seed in range(num_old)])
            copies = min(num_old, given.documents // 2)
            new = [edited(page(seed), seed) for seed in range(copies)]
            crawls.write("new", new + [page(10**9 + seed) for seed in range(given.documents - copies)])
            if factor == 0:
                seconds(crawls, "new", None)  # loads the kernels
                crawls = Crawls(Path(folder) / "x0 again")
                crawls.write("new", [page(10**9 + seed) for seed in range(given.documents)])
                figures["alone_s"] = seconds(crawls, "new", None)
                print(f"{0:>14} {'':>10} {'':>9} {'':>8} {'':>9} {figures['alone_s']:>8.2f} s")
                continue
            plain = seconds(crawls, "old", "add: true")
            (origin,) = load_index(crawls.index).origins
            size = sum(path.stat().st_size for path in crawls.index.rglob("*.parquet"))
            against = seconds(crawls, "new", "")
            assert sum(row["index_segment"] is not None for row in crawls.evidence("new").values()) >= 0.95 * copies
            share = size / origin.text_bytes
            print(
                f"{num_old:>14,} {size / 1e6:>7.1f} MB {size / num_old:>7.0f} B {share:>8.0%} {plain:>7.2f} s "
                f"{against:>8.2f} s"
            )
            figures |= {f"against_x{factor}_s": against, "bytes_per_document": size / num_old, "share_of_text": share}
    print(" ".join(f"{name}={value:.4g}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
