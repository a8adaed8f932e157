"""Decisions of the rule presets against datatrove's own filters: kept, or which rule dropped the document.

    python tests/accuracy/presets.py [--data DIR] [--largest CHARACTERS] [--every N]

DIR is a folder in the layout of the test data (default: environment variable DATAENG_TEST_DATA). All documents of
``domains/*.jsonl.gz`` and the main texts of all HTML pages of ``crawl/recorded/*.warc.gz`` are judged by both sides,
but those longer than ``--largest`` characters: datatrove reads about 0.3 MB a second. It runs as FineWeb runs it, with
spaCy's English tokenizer for all; documents mostly in scripts that it does not split (Chinese, Japanese, Thai, ...)
are counted apart. ``agreement`` in the last line is the smallest share of documents, over the presets, with the same
decision and reason.

Every disagreement gets a kind: what, replaced by datatrove's own value, makes our decision the same.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

sys.path.insert(0, str(Path(__file__).parents[2]))

ENGLISH = ("the", "be", "to", "of", "and", "that", "have", "with")
LARGEST = 100_000

#: preset: (datatrove's filter, its options, prefix of our reasons)
PEERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "gopher@datatrove": ("GopherQualityFilter", {}, "gopher_"),
    "gopher_repetition@datatrove": ("GopherRepetitionFilter", {}, "gopher_repetition_"),
    "c4@datatrove": ("C4QualityFilter", {}, "c4_"),
    "c4@fineweb": ("C4QualityFilter", {"filter_no_terminal_punct": False}, "c4_"),
    "fineweb@code": ("FineWebQualityFilter", {}, "fineweb_"),
}


@dataclass
class Peer:
    """What datatrove says of one document."""

    words: list[str]
    sentences: int
    terminal_sentences: int
    reasons: dict[str, str | None] = field(default_factory=dict)


def read_documents(data: Path, largest: int = LARGEST, every: int = 1) -> dict[str, list[str]]:
    """Returns the texts of each domain and of the recorded crawl, shortened by nothing; too long ones are left out."""
    found = {}
    for path in sorted((data / "domains").glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            found[path.name.removesuffix(".jsonl.gz")] = [json.loads(line)["text"] for line in lines]
    found["crawl"] = crawl_texts(data)
    return {name: [t for t in texts if 0 < len(t) <= largest][::every] for name, texts in found.items()}


def crawl_texts(data: Path) -> list[str]:
    """Returns the main text of each HTML page of the recorded crawl."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    texts = []
    for path in sorted((data / "crawl" / "recorded").glob("*.warc.gz")):
        with path.open("rb") as stream:
            for record in ArchiveIterator(stream, record_types=WarcRecordType.response):
                if record.http_headers is None or record.http_headers.status_code != 200:
                    continue
                if "html" not in (record.http_content_type or ""):
                    continue
                payload = record.reader.read()
                html = bytes_to_str(payload, detect_encoding(payload))
                texts.append(extract_plain_text(html, main_content=True, alt_texts=False))
    return texts


def judge(texts: Sequence[str]) -> list[Peer]:
    """Runs datatrove's filters, each on the unedited text, document by document, since it caches the last words."""
    from datatrove.data import Document
    from datatrove.pipeline import filters
    from datatrove.utils.text import split_into_sentences, split_into_words

    blocks = {preset: getattr(filters, name)(**options) for preset, (name, options, _) in PEERS.items()}
    found = []
    for text in texts:
        peer = Peer(list(split_into_words(text)), 0, 0)
        for preset, block in blocks.items():
            verdict = block.filter(Document(text=text, id="0"))
            prefix = PEERS[preset][2]
            reason = None if verdict is True else str(verdict[1])
            peer.reasons[preset] = reason if reason is None or reason.startswith(prefix) else prefix + reason
        peer.sentences, peer.terminal_sentences = c4_sentences(text, lambda line: len(split_into_sentences(line)))
        found.append(peer)
    return found


def c4_sentences(text: str, count_sentences: Any) -> tuple[int, int]:
    """Returns our counters ``c4_sentences`` and ``c4_terminal_sentences`` with another count of sentences per line."""
    from tests.kernels.signals_reference import c4_counts

    counts = c4_counts(text, count_sentences)
    return counts.get("c4_sentences", 0), counts.get("c4_terminal_sentences", 0)


def measured(texts: Sequence[str]) -> pl.DataFrame:
    from dataeng.stages.quality.quality_signals import QualitySignals

    stage = QualitySignals(language="en")
    stage.setup({})
    return stage.apply(pl.DataFrame({"text": list(texts)}, schema={"text": pl.String}))


def decisions(signals: pl.DataFrame, preset: str) -> list[str | None]:
    from dataeng.stages.quality.apply_rules import ApplyRules

    return ApplyRules(presets=(preset,)).apply(signals)["reason"].to_list()  # type: ignore[no-any-return]


@dataclass
class Disagreement:
    preset: str
    row: int
    ours: str | None
    theirs: str | None
    kind: str = ""


def compare(texts: Sequence[str], peers: Sequence[Peer]) -> list[Disagreement]:
    """Returns the documents with another decision or reason, each with its kind."""
    signals = measured(texts)
    found = []
    for preset in PEERS:
        for row, (ours, peer) in enumerate(zip(decisions(signals, preset), peers, strict=True)):
            if ours != peer.reasons[preset]:
                found.append(Disagreement(preset, row, ours, peer.reasons[preset]))
    for one in found:
        one.kind = kind_of(one, texts[one.row], peers[one.row], signals[one.row])
    return found


def kind_of(one: Disagreement, text: str, peer: Peer, signals: pl.DataFrame) -> str:
    """Names what it is that we count otherwise."""
    from tests.kernels.signals_reference import word_counts

    def decided(**values: int) -> str | None:
        changed = signals.with_columns(pl.lit(v, pl.Int64).alias("quality_" + k) for k, v in values.items())
        return decisions(changed, one.preset)[0]

    counts = word_counts(text, peer.words, ENGLISH)
    if decided(**counts) == one.theirs:
        return "words: spaCy cuts some otherwise"
    if decided(c4_sentences=peer.sentences, c4_terminal_sentences=peer.terminal_sentences) == one.theirs:
        return "sentences: spaCy ends some otherwise"
    joined = {f"dup_{n}_gram_chars": joined_ngram_chars(peer.words, n) for n in range(5, 11)}
    if decided(**counts, **joined) == one.theirs:
        return "n-grams: datatrove joins their words without a space"
    if one.preset.startswith("c4"):
        return "C4 lines: datatrove looks at the line without its citations"
    return "other"


def joined_ngram_chars(words: Sequence[str], n: int) -> int:
    from datatrove.pipeline.filters.gopher_repetition_filter import find_all_duplicate

    return int(find_all_duplicate(list(words), n))


def splits(text: str) -> bool:
    """Whether spaCy's English tokenizer cuts words here: few letters are of a script without spaces."""
    from tests.accuracy.scripts_without_spaces import share_without_spaces

    return share_without_spaces(text) < 0.2


def parts(texts: Sequence[str], size: int = 50) -> Iterable[Sequence[str]]:
    return (texts[i : i + size] for i in range(0, len(texts), size))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("DATAENG_TEST_DATA"))
    parser.add_argument("--largest", type=int, default=LARGEST)
    parser.add_argument("--every", type=int, default=1, help="every n-th document only")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data or DATAENG_TEST_DATA: a folder in the layout of the test data")
    documents = read_documents(arguments.data, arguments.largest, arguments.every)
    texts = [text for group in documents.values() for text in group if splits(text)]
    others = [text for group in documents.values() for text in group if not splits(text)]
    with ProcessPoolExecutor(arguments.workers) as pool:
        peers = [peer for part in pool.map(judge, parts(texts)) for peer in part]
        other_peers = [peer for part in pool.map(judge, parts(others)) for peer in part]
    print(f"{len(texts)} documents, {sum(map(len, texts)) / 1e6:.1f} million characters")
    shares = report(texts, peers)
    print(f"\nIn scripts without spaces ({len(others)} documents, not in the figures below):")
    report(others, other_peers)
    figures = " ".join(f"{preset.replace('@', '_')}={share:.4f}" for preset, share in shares.items())
    print(f"agreement={min(shares.values()):.4f} {figures} documents={len(texts)}")


def report(texts: Sequence[str], peers: Sequence[Peer]) -> dict[str, float]:
    """Prints a table and the kinds of disagreement; returns the share of agreement of each preset."""
    found = compare(texts, peers)
    shares = {}
    print(f"{'preset':30} {'dropped':>8} {'same reason':>12} {'same verdict':>13}")
    for preset in PEERS:
        own = [one for one in found if one.preset == preset]
        dropped = sum(peer.reasons[preset] is not None for peer in peers)
        verdicts = sum((one.ours is None) != (one.theirs is None) for one in own)
        shares[preset] = 1 - len(own) / len(texts)
        print(f"{preset:30} {dropped:8} {shares[preset]:12.4f} {1 - verdicts / len(texts):13.4f}")
    for (preset, kind), count in sorted(Counter((one.preset, one.kind) for one in found).items()):
        print(f"  {preset}: {count} × {kind}")
    return shares


if __name__ == "__main__":
    main()
