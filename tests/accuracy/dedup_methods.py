"""The clusters that each method of `dedup.py` finds among texts: ours, and the peers' own code.

A method takes texts and a threshold and returns, for each text, the number of its cluster.
"""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from dataeng.stage import ExchangeStage
from dataeng.stages.dedup.deduplicate_exact import DeduplicateExact
from dataeng.stages.dedup.deduplicate_minhash import DeduplicateMinhash
from dataeng.stages.dedup.deduplicate_simhash import DeduplicateSimhash
from tests.stages.exchange import run_exchange

BANDS, ROWS, NGRAM, SEED = 14, 8, 5, 1

Method = Callable[[Sequence[str], float, Path], list[int]]


def joined(num_texts: int, links: Sequence[tuple[int, int]]) -> list[int]:
    """Returns the cluster of each text: the number of the first text that it is linked with, over any others."""
    first = list(range(num_texts))

    def find(text: int) -> int:
        while first[text] != text:
            first[text] = first[first[text]]
            text = first[text]
        return text

    for one, other in links:
        low, high = sorted((find(one), find(other)))
        first[high] = low
    return [find(text) for text in range(num_texts)]


def ours(stage: ExchangeStage) -> Method:
    """A stage, run in memory as the engine runs it."""

    def run(texts: Sequence[str], threshold: float, folder: Path) -> list[int]:
        verdicts = run_exchange(stage, [texts], folder)
        if not verdicts.height:
            return list(range(len(texts)))
        kept = verdicts.get_column("kept_id").str.strip_prefix("p0r").cast(pl.Int64)
        return joined(len(texts), list(zip(verdicts.get_column("row").to_list(), kept.to_list(), strict=True)))

    return run


def ours_verified_simhash(texts: Sequence[str], threshold: float, folder: Path) -> list[int]:
    return ours(DeduplicateSimhash(ngram=NGRAM, threshold=threshold))(texts, threshold, folder)


def ours_verified(texts: Sequence[str], threshold: float, folder: Path) -> list[int]:
    return ours(DeduplicateMinhash(bands=BANDS, rows=ROWS, ngram=NGRAM, seed=SEED, threshold=threshold))(
        texts, threshold, folder
    )


def ours_verified_wide(texts: Sequence[str], threshold: float, folder: Path) -> list[int]:
    """With more bands than the threshold needs: verification makes that safe."""
    return ours(DeduplicateMinhash(bands=40, rows=5, ngram=NGRAM, seed=SEED, threshold=threshold))(
        texts, threshold, folder
    )


def datatrove(texts: Sequence[str], threshold: float, folder: Path) -> list[int]:
    """datatrove's signature, bucket and cluster jobs with its defaults; the clusters are what its filter would get."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets

    config = MinhashConfig(n_grams=NGRAM, num_buckets=BANDS, hashes_per_bucket=ROWS)
    signatures, buckets, removed = (str(folder / name) for name in ("signatures", "buckets", "remove_ids"))
    documents = (Document(text=text, id=str(number)) for number, text in enumerate(texts))
    for _ in MinhashDedupSignature(signatures, config=config).run(documents, 0, 1) or ():
        pass
    for bucket in range(BANDS):
        MinhashDedupBuckets(signatures, buckets, config=config).run(None, bucket, BANDS)
    MinhashDedupCluster(buckets, removed, config=config, save_cluster_id=True).run(None, 0, 1)
    links: dict[int, list[int]] = {}
    for file in (folder / "remove_ids").glob("*.clusters"):
        for document, cluster in struct.iter_unpack("<2I", file.read_bytes()):
            links.setdefault(cluster, []).append(document)
    return joined(len(texts), [(group[0], other) for group in links.values() for other in group[1:]])


def _shingles(text: str) -> list[bytes]:
    words = text.lower().split()
    return [" ".join(words[i : i + NGRAM]).encode() for i in range(max(1, len(words) - NGRAM + 1))] if words else []


def _datasketch(texts: Sequence[str], **lsh: Any) -> list[int]:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(num_perm=BANDS * ROWS, **lsh)
    links = []
    for number, signature in enumerate(MinHash.bulk([_shingles(text) for text in texts], num_perm=BANDS * ROWS)):
        if not texts[number].split():
            continue
        links += [(number, found) for found in index.query(signature)]
        index.insert(number, signature)
    return joined(len(texts), links)


def datasketch(texts: Sequence[str], threshold: float, folder: Path) -> list[int]:
    """datasketch's MinHashLSH with the bands that it chooses for a threshold; words are ``text.lower().split()``."""
    return _datasketch(texts, threshold=threshold)


def datasketch_same_bands(texts: Sequence[str], threshold: float, folder: Path) -> list[int]:
    """datasketch's MinHashLSH with our bands."""
    return _datasketch(texts, params=(BANDS, ROWS))


CLUSTERS_OF_TEXT_DEDUP = (
    "import json, pickle, sys; found = pickle.load(open(sys.argv[1], 'rb'))\n"
    "print(json.dumps([[int(text), int(other)] for text, other in found.parent.items()]))"
)


def text_dedup(python: str) -> Method:
    """text-dedup's own program, in an interpreter of its own; its clusters are those of its union-find."""

    def run(texts: Sequence[str], threshold: float, folder: Path) -> list[int]:
        folder.mkdir(parents=True, exist_ok=True)
        pl.DataFrame({"text": texts}).write_parquet(folder / "texts.parquet")
        given = {
            "path": "parquet", "data_files": folder / "texts.parquet", "split": "train", "cache_dir": folder / "cache",
            "output": folder / "output", "column": "text", "ngram": NGRAM, "num_perm": BANDS * ROWS, "b": BANDS,
            "r": ROWS, "num_proc": 1,
        }  # fmt: skip
        options = [word for key, value in given.items() for word in (f"--{key}", str(value))]
        command = [python, "-m", "text_dedup.minhash", *options, "--debug"]
        subprocess.run(command, check=True, capture_output=True)
        command = [python, "-c", CLUSTERS_OF_TEXT_DEDUP, str(folder / "output" / "uf.pkl")]
        return joined(len(texts), json.loads(subprocess.run(command, check=True, capture_output=True).stdout))

    return run


#: Methods that have no threshold of their own are run once.
WITHOUT_THRESHOLD: dict[str, Method] = {
    "dataeng, exact text": ours(DeduplicateExact()),
    "dataeng, exact normalised text": ours(DeduplicateExact(by="normalized_text")),
    "dataeng, SimHash": ours(DeduplicateSimhash(threshold=None)),
    "dataeng, MinHash 14x8": ours(DeduplicateMinhash(bands=BANDS, rows=ROWS, ngram=NGRAM, seed=SEED, threshold=None)),
    "datatrove, MinHash 14x8": datatrove,
    "datasketch, MinHashLSH 14x8": datasketch_same_bands,
}
WITH_THRESHOLD: dict[str, Method] = {
    "dataeng, SimHash verified": ours_verified_simhash,
    "dataeng, MinHash 14x8 verified": ours_verified,
    "dataeng, MinHash 40x5 verified": ours_verified_wide,
    "datasketch, MinHashLSH(threshold)": datasketch,
}
