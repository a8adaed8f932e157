"""Which of a crawl's URLs name one page: canonical URLs and redirects against the crawl's labels.

    python tests/accuracy/canonical_urls.py [--data DIR]

DIR is a folder in the layout of the test data (default: environment variable DATAENG_TEST_DATA). Of the URLs in
``crawl/recorded/truth.jsonl.gz`` with a 200 response or a redirect, a pair is right to merge if the labels call one an
alias of the other or its redirect (``dup_of``; redirects that add a slash are labelled by their target). The rows are
settings of ``deduplicate_exact: {by: url}``; *recall* is the share of labelled pairs that get one key, *precision* the
share of pairs with one key that are one page by the labels. Mirrors and other versions are other URLs: no canonical
form can find them, and they are counted to show that none is merged by accident. Redirects are read from the archives.

For comparison: the URLs as they are, C4's key (scheme, ``www.``, everything from ``?utm_``, ``?ref`` or ``?feed`` on,
and the final slash removed), and what w3lib's ``canonicalize_url`` and courlan's ``normalize_url`` make of them.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import os
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

sys.path.insert(0, str(Path(__file__).parents[2]))

OURS: dict[str, tuple[tuple[str, ...], bool]] = {
    "nothing dropped": ((), False),
    "default": (("@tracking", "@session"), False),
    "default, redirects": (("@tracking", "@session"), True),
    "+ print, lang": (("@tracking", "@session", "print", "lang"), True),
}


def read_truth(data: Path) -> list[dict[str, Any]]:
    with gzip.open(data / "crawl/recorded/truth.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [row for row in rows if row["status"] in ("200", "301")]


def read_redirects(data: Path) -> pl.DataFrame:
    """Returns the redirects of the crawl as `read_warc` describes them."""
    from dataeng.stages.ingest.read_warc import ReadWarc

    source = ReadWarc(paths=("crawl/recorded/*.warc.gz",))
    frames = [batch for file in source.files(data) for batch in source.read(file)]
    return pl.concat(frames).filter(pl.col("reason") == "redirect").select("url", "detail", "http_status", "date")


def labelled_pairs(rows: list[dict[str, Any]]) -> dict[str, set[tuple[str, str]]]:
    """Returns kind → pairs of URLs that are one page (alias, redirect) or the same text elsewhere (mirror, version)."""
    urls = {row["url"] for row in rows}
    pairs: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for row in rows:
        if row.get("dup_of") in urls:
            pairs[row["kind"].partition(":")[0]].add(pair(row["url"], row["dup_of"]))
        elif row["status"] == "301" and row["url"] + "/" in urls:
            pairs["slash"].add(pair(row["url"], row["url"] + "/"))
    return pairs


def page_of(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Returns URL → the URL of the page that it names, by the labels."""
    urls = {row["url"] for row in rows}
    pages = {}
    for row in rows:
        pages[row["url"]] = row["url"]
        if row["kind"] in ("alias", "redirect"):
            pages[row["url"]] = row["dup_of"]
        elif row["status"] == "301" and row["url"] + "/" in urls:
            pages[row["url"]] += "/"
    return pages


def pair(a: str, b: str) -> tuple[str, str]:
    return (a, b) if a < b else (b, a)


def our_keys(urls: Sequence[str], dropped: tuple[str, ...], redirects: pl.DataFrame | None) -> list[str | None]:
    from dataeng.stages.dedup.redirects import MAX_HOPS, PERMANENT, usable_redirects
    from dataeng.stages.ingest.canonical_url import canonical_urls, resolved

    keys = canonical_urls(pl.Series(urls, dtype=pl.String), dropped)
    if redirects is None:
        return keys.to_list()
    permanent = redirects.filter(pl.col("http_status").is_in(PERMANENT))
    sources = canonical_urls(permanent["url"], dropped)
    targets = canonical_urls(resolved(permanent["url"], permanent["detail"]), dropped)
    usable = usable_redirects(sources, targets)
    moves = dict(zip(sources.filter(usable), targets.filter(usable), strict=True))
    found = []
    for key in keys:
        for _ in range(MAX_HOPS):
            key = moves.get(key, key)
        found.append(key)
    return found


def c4_key(url: str) -> str:
    url = re.sub(r"^https?://(www\.)?", "", url)
    return re.sub(r"\?(utm_|ref|feed).*", "", url).rstrip("/")


def peers() -> dict[str, Callable[[str], str | None]]:
    from courlan import normalize_url
    from w3lib.url import canonicalize_url

    return {
        "as they are": lambda url: url,
        "C4": c4_key,
        "w3lib": canonicalize_url,
        "courlan": lambda url: normalize_url(url, strict=False, trailing_slash=False),
    }


def merged_pairs(urls: Sequence[str], keys: Sequence[str | None]) -> set[tuple[str, str]]:
    groups = defaultdict(list)
    for url, key in zip(urls, keys, strict=True):
        if key is not None:
            groups[key].append(url)
    return {pair(a, b) for group in groups.values() for a, b in itertools.combinations(group, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("DATAENG_TEST_DATA"))
    data = parser.parse_args().data
    if data is None:
        parser.error("give --data, or set DATAENG_TEST_DATA")
    rows = read_truth(data)
    urls = [row["url"] for row in rows]
    pages = page_of(rows)
    labels = labelled_pairs(rows)
    right = labels["alias"] | labels["redirect"] | labels["slash"]
    found_redirects = read_redirects(data)
    results = {name: [peer(url) for url in urls] for name, peer in peers().items()}
    for name, (dropped, follow) in OURS.items():
        results[f"ours, {name}"] = our_keys(urls, dropped, found_redirects if follow else None)
    print(f"{len(urls):,} URLs; pairs: " + ", ".join(f"{len(found)} {kind}" for kind, found in sorted(labels.items())))
    names = ("alias", "redirect", "slash", "recall", "merged", "precision", "mirror")
    print(f"{'key':32} " + " ".join(f"{name:>9}" for name in names))
    figures = {}
    for name, keys in results.items():
        merged = merged_pairs(urls, keys)
        good = {p for p in merged if pages[p[0]] == pages[p[1]]}
        shares = [f"{len(merged & labels[kind])}/{len(labels[kind])}" for kind in ("alias", "redirect", "slash")]
        recall, precision = len(merged & right) / len(right), len(good) / len(merged) if merged else 1.0
        others = len(merged & (labels["mirror"] | labels["version"]))
        cells = (*shares, f"{recall:.3f}", len(merged), f"{precision:.3f}", others)
        print(f"{name:32} " + " ".join(f"{cell:>9}" for cell in cells))
        figures[name] = (recall, precision)
    print(f"{'':32} microseconds a URL")
    many = urls * 20
    for name, peer in peers().items():
        print(f"{name:32} {microseconds(lambda peer=peer: [peer(url) for url in many], len(many)):8.2f}")
    ours = microseconds(lambda: our_keys(many, ("@tracking", "@session"), None), len(many))
    print(f"{'ours':32} {ours:8.2f}")
    recall, precision = figures["ours, default, redirects"]
    print(f"recall={recall:.3f} precision={precision:.3f} recall_c4={figures['C4'][0]:.3f} us_per_url={ours:.2f}")


def microseconds(work: Callable[[], object], count: int) -> float:
    """Returns processor time per item, the best of three."""
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best / count * 1e6


if __name__ == "__main__":
    main()
