"""Corpora of any size with near-duplicates in them, made of the texts of the test data; the same for the same seed.

A page is put together from passages of a few hundred bytes, drawn from all texts; two pages rarely share more than one.
Shares of the pages are then

* copies of an earlier page, byte for byte;
* editions of an earlier page, with a share of its words replaced;
* in a skewed corpus, half of all pages: one form letter of a thousand words in which three words differ.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

COPIES, EDITIONS = 0.05, 0.25
REPLACED_SHARES = (0.002, 0.01, 0.03, 0.10)
PASSAGE_BYTES = 300
PASSAGES = (3, 5, 8, 12, 20)
REMEMBERED = 5000
"""Pages that copies and editions are made of: duplicates are spread over files, and over a few thousand pages."""
MAX_FILE_BYTES = 32 << 20


@dataclass(frozen=True)
class Corpus:
    """What was written."""

    files: list[Path]
    num_documents: int
    num_bytes: int


def texts_of(data: Path) -> list[str]:
    """Returns the texts of ``domains/`` and the crawl's extracted pages (``*.wet.gz``), in order."""
    texts = []
    for file in sorted((data / "domains").glob("*.jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            texts += [json.loads(line)["text"] for line in lines]
    for file in sorted((data / "crawl" / "recorded").glob("*.wet.gz")):
        records = gzip.decompress(file.read_bytes()).split(b"WARC/1.0\r\n")
        bodies = [record.split(b"\r\n\r\n", 1)[1] for record in records if b"WARC-Type: conversion" in record]
        texts += [body.decode("utf-8", "replace") for body in bodies]
    return [text for text in texts if text.strip()]


def passages_of(texts: list[str], size: int = PASSAGE_BYTES) -> list[str]:
    """Cuts texts at line ends into passages of at least ``size`` characters where they have that many."""
    passages = []
    for text in texts:
        held = ""
        for line in text.splitlines():
            for start in range(0, len(line), 4 * size):  # some texts are one line of a megabyte
                held += line[start : start + 4 * size] + "\n"
                if len(held) >= size:
                    passages.append(held)
                    held = ""
        if held.strip():
            passages.append(held)
    return passages


def pages(passages: list[str], seed: int, skewed: bool = False) -> Iterator[str]:
    """Yields pages without end."""
    draw = random.Random(seed)
    vocabulary = " ".join(draw.sample(passages, min(len(passages), 2000))).split()
    letter = " ".join(draw.choices(vocabulary, k=1000)).split()
    earlier: list[str] = []
    while True:
        kind = draw.random()
        if skewed and draw.random() < 0.5:
            words = list(letter)
            for _ in range(3):
                words[draw.randrange(len(words))] = draw.choice(vocabulary)
            yield " ".join(words)
        elif earlier and kind < COPIES:
            yield draw.choice(earlier)
        elif earlier and kind < COPIES + EDITIONS:
            yield edited(draw.choice(earlier), draw.choice(REPLACED_SHARES), vocabulary, draw)
        else:
            page = "".join(draw.choices(passages, k=draw.choice(PASSAGES)))
            if len(earlier) < REMEMBERED:
                earlier.append(page)
            elif draw.random() < 0.05:
                earlier[draw.randrange(REMEMBERED)] = page
            yield page


def edited(page: str, share: float, vocabulary: list[str], draw: random.Random) -> str:
    """Returns a page with a share of its words, at least one, replaced."""
    words = page.split(" ")
    for _ in range(max(1, round(share * len(words)))):
        words[draw.randrange(len(words))] = draw.choice(vocabulary)
    return " ".join(words)


def write_corpus(data: Path, folder: Path, num_bytes: int, files: int, seed: int = 0, skewed: bool = False) -> Corpus:
    """Writes ``files`` (or more, of at most 32 MB) Parquet files ``id, text`` of ``num_bytes`` of text in all."""
    folder.mkdir(parents=True)
    source = pages(passages_of(texts_of(data)), seed, skewed)
    wanted = max(files, -(-num_bytes // MAX_FILE_BYTES))
    written: list[Path] = []
    documents = total = 0
    for number in range(wanted):
        texts, size = [], 0
        while size < num_bytes / wanted:
            texts.append(next(source))
            size += len(texts[-1].encode())
        table = pl.DataFrame({"id": [f"{number}-{row}" for row in range(len(texts))], "text": texts})
        written.append(folder / f"part-{number:04d}.parquet")
        table.write_parquet(written[-1], compression="zstd", compression_level=1, row_group_size=1000)
        documents, total = documents + len(texts), total + size
    return Corpus(written, documents, total)
