"""How well tokenizers fit a corpus: fertility and bytes per token of each domain and language, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from rich.table import Table

from dataeng.errors import FormatError, InputError

if TYPE_CHECKING:
    from rich.console import Console

#: Texts are encoded so many at a time: their tokens are Python lists on the way.
BATCH_TEXTS = 256
COUNTS = ("documents", "bytes", "characters", "words", "tokens", "restored_documents")
LEVELS = {"all": (), "domain": ("domain",), "language": ("language",), "group": ("domain", "language")}


def load_reference(path: Path) -> tuple[str, Any]:
    """Returns the name and the tokenizer (of the library ``tokenizers``) that a path stands for.

    Args:
      path: a ``tokenizer.json`` or a folder with one, or a folder with GPT-2's ``encoder.json`` and ``vocab.bpe``
        (``vocab.json`` and ``merges.txt`` in its later spelling).

    Raises:
      InputError: there is no tokenizer at the path.
      FormatError: its files cannot be read as one.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        if file.exists() and file.suffix == ".json":
            return (path.name if path.is_dir() else path.parent.name or path.stem), Tokenizer.from_file(str(file))
        for vocabulary, merges in (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")):
            if (path / vocabulary).exists() and (path / merges).exists():
                model = models.BPE.from_file(str(path / vocabulary), str(path / merges))
                tokenizer = Tokenizer(model)
                tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
                tokenizer.decoder = decoders.ByteLevel()
                return path.name, tokenizer
    except Exception as error:  # the library raises bare Exception for every malformed file
        raise FormatError(f"{path} cannot be read as a tokenizer: {error}") from error
    raise InputError(
        f"{path} is no tokenizer: expected a tokenizer.json, or a folder with one, or with encoder.json and vocab.bpe."
    )


def measure(texts: pl.DataFrame, tokenizers: Mapping[str, Any]) -> pl.DataFrame:
    """Returns a row per tokenizer and level (all, each domain, each language, each group of both).

    Args:
      texts: ``text``, ``domain`` and ``language``.
      tokenizers: name → tokenizer.

    Returns:
      ``tokenizer``, ``level``, ``domain``, ``language``, the sums of `COUNTS` (restored documents are those that
      decode to the text they came from), ``fertility`` (tokens per word; a word is a run of characters other than
      white space, which says little about scripts without spaces) and ``bytes_per_token``.
    """
    text = pl.col("text")
    measured = texts.select(
        "domain",
        "language",
        pl.lit(1, pl.Int64).alias("documents"),
        text.str.len_bytes().cast(pl.Int64).alias("bytes"),
        text.str.len_chars().cast(pl.Int64).alias("characters"),
        text.str.count_matches(r"\S+").cast(pl.Int64).alias("words"),
    )
    tables = []
    for name, tokenizer in tokenizers.items():
        tokens, restored = _encode(texts.get_column("text"), tokenizer)
        counted = measured.with_columns(
            pl.Series("tokens", tokens, pl.Int64), pl.Series("restored_documents", restored, pl.Int64)
        )
        for level, columns in LEVELS.items():
            keys = [pl.col(column) if column in columns else pl.lit("").alias(column) for column in LEVELS["group"]]
            sums = counted.group_by(keys).agg(pl.col(COUNTS).sum()).sort("domain", "language")
            tables.append(
                sums.select(
                    pl.lit(name).alias("tokenizer"),
                    pl.lit(level).alias("level"),
                    "domain",
                    "language",
                    *COUNTS,
                    (pl.col("tokens") / pl.col("words")).alias("fertility"),
                    (pl.col("bytes") / pl.col("tokens")).alias("bytes_per_token"),
                )
            )
    return pl.concat(tables)


def _encode(texts: pl.Series, tokenizer: Any) -> tuple[list[int], list[bool]]:
    """Returns the number of tokens of every text, and whether they decode to it again."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    tokens: list[int] = []
    restored: list[bool] = []
    for some in texts.to_frame().iter_slices(BATCH_TEXTS):
        batch = some.to_series().to_list()
        ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False)]
        tokens += [len(of_text) for of_text in ids]
        decoded = tokenizer.decode_batch(ids, skip_special_tokens=False)
        restored += [before == after for before, after in zip(batch, decoded, strict=True)]
    return tokens, restored


def print_report(console: Console, report: pl.DataFrame, levels: Sequence[str] = ("language", "domain", "all")) -> None:
    """Prints bytes per token and fertility, a row per language and per domain, a column per tokenizer.

    A ``*`` marks figures of texts that do not all come back: what a tokenizer cannot write costs it nothing.
    """
    names = report.get_column("tokenizer").unique(maintain_order=True).to_list()
    table = Table(title="bytes per token · tokens per word", title_justify="left", box=None, pad_edge=False)
    for heading in ("", "documents", "MB"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name in names:
        table.add_column(name, justify="right")
    for level in levels:
        rows = report.filter(pl.col("level") == level)
        for domain, language in rows.select("domain", "language").unique(maintain_order=True).iter_rows():
            here = rows.filter((pl.col("domain") == domain) & (pl.col("language") == language))
            by_name = {row["tokenizer"]: row for row in here.iter_rows(named=True)}
            label = {"language": f"language {language or 'unknown'}", "domain": f"domain {domain}"}.get(level, "all")
            first = by_name[names[0]]
            cells = [_cell(by_name[name]) for name in names]
            table.add_row(label, f"{first['documents']:,}", f"{first['bytes'] / 1e6:.2f}", *cells)
        table.add_section()
    console.print(table, highlight=False)
    if report.select((pl.col("restored_documents") < pl.col("documents")).any()).item():
        console.print("* not all of these texts come back from their tokens", highlight=False)


def _cell(row: Mapping[str, Any]) -> str:
    lossy = "*" if row["restored_documents"] < row["documents"] else " "
    return f"{row['bytes_per_token']:.2f} · {row['fertility']:.2f}{lossy}"
