"""Stage `remove_boilerplate`: removes lines that a host repeats on many of its pages.

    text ─► first and last lines ─► (host, line) hashes, counted per part ─┐  by (host, line)
                                                                          ▼
                           pages: lines on at least `min_pages` pages of a host ─┐  by host
                                                                                 ▼
                     boilerplate: those on at least `min_share` of the host's pages; verdicts per part

What travels are hashes and counts (and the host's name once per part), never texts: about 24 bytes for each
different line of a host in a part. The first step spreads a host over all partitions, so that a host with half the
corpus costs no more memory than many small ones; to the second step come only the lines that many pages share.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import polars as pl
from pydantic import Field

from dataeng.document import TEXT, drop_where
from dataeng.stage import Columns, ExchangeStage, OutputFiles

REMOVED_LINES = "boilerplate_lines_removed"
REMOVED_CHARS = "boilerplate_chars_removed"
SAMPLE = "boilerplate_sample"
SAMPLE_CHARS = 300

#: Stands for "a page of this host" among line hashes.
_PAGE = 0


class RemoveBoilerplate(ExchangeStage):
    """Removes lines that stand on many pages of the same host: headers, footers, menus, banners of a template.

    Of each page, the first and last `edge_lines` lines that are not blank are looked at, without the white space around
    them. A line is boilerplate of a host if at least `min_pages` of the host's pages have it, and these are at
    least `min_share` of all its pages; a page counts once, however often the line is on it. Pages are those that reach
    this stage: put it after deduplication, or copies of one page make its text boilerplate. Where lines were removed,
    line feeds at both ends of the text go, too. Documents without a host pass by.

    A page of nothing else is dropped as `only_boilerplate` and keeps its text. Signals: the number of lines and
    characters removed, and `boilerplate_sample`, the beginning of what was removed (300 characters). The run's `dedup`
    table says of each line on how many of the host's pages it was (lines by hash).
    """

    kernels: ClassVar[tuple[str, ...]] = ("hashing", "lines")

    edge_lines: int | None = Field(default=20, ge=1, description="Lines looked at from each end; null looks at all")
    min_pages: int = Field(default=5, ge=2, description="Least number of pages with the line")
    min_share: float = Field(default=0.3, gt=0, le=1, description="Least share of the host's pages")

    def columns(self) -> Columns:
        return Columns(
            reads=("id", "host", TEXT),
            signals={REMOVED_LINES: pl.Int64(), REMOVED_CHARS: pl.Int64(), SAMPLE: pl.String()},
        )

    def verdict_columns(self) -> Mapping[str, pl.DataType]:
        return {"part": pl.UInt32(), "host_hash": pl.UInt64(), "line_hash": pl.UInt64()}

    def steps(self) -> tuple[str, ...]:
        return ("pages", "boilerplate")

    def emit(self, batch: pl.DataFrame) -> pl.DataFrame:
        hosted = batch.filter(_has_host())
        lines = self._lines(hosted).select("part", "row", "host_hash", "line_hash").unique()
        page = pl.lit(_PAGE, dtype=pl.UInt64).alias("line_hash")
        pages = hosted.select("part", "row", _host_hash(hosted), page, "host")
        key = ["part", "host_hash", "line_hash", "host"]
        table = pl.concat([pages, lines], how="diagonal").group_by(key).agg(pl.len().cast(pl.UInt32).alias("pages"))
        mixed = pl.col("host_hash") ^ pl.col("line_hash")
        return _ordered(table.with_columns((mixed % self.num_partitions).cast(pl.UInt32).alias("partition")))

    def combine(self, table: pl.DataFrame) -> pl.DataFrame:
        key = ["part", "host_hash", "line_hash", "host", "partition"]
        return _ordered(table.group_by(key).agg(pl.col("pages").sum().cast(pl.UInt32)))

    def reduce(self, step: int, table: pl.DataFrame, outputs: OutputFiles) -> pl.DataFrame:
        if step == 0:
            total = pl.col("pages").cast(pl.UInt64).sum().over("host_hash", "line_hash")
            shared = table.filter((pl.col("line_hash") == _PAGE) | (total >= self.min_pages))
            return _ordered(
                shared.with_columns((pl.col("host_hash") % self.num_partitions).cast(pl.UInt32).alias("partition"))
            )
        is_page = pl.col("line_hash") == _PAGE
        hosts = (
            table.filter(is_page)
            .group_by("host_hash")
            .agg(pl.col("host").min(), pl.col("pages").cast(pl.UInt64).sum().alias("of_pages"))
        )
        lines = (
            table.filter(~is_page)
            .drop("host")
            .with_columns(pl.col("pages").cast(pl.UInt64).sum().over("host_hash", "line_hash").alias("on_pages"))
        )
        judged = lines.join(hosts, on="host_hash", how="left", maintain_order="left")
        return judged.filter(pl.col("on_pages") >= self.min_share * pl.col("of_pages")).select(
            "part", "host_hash", "line_hash", "host", "on_pages", "of_pages"
        )

    def apply(self, batch: pl.DataFrame, verdicts: pl.DataFrame) -> pl.DataFrame:
        nothing = (pl.lit(0, dtype=pl.Int64), pl.lit(0, dtype=pl.Int64), pl.lit(None, dtype=pl.String))
        batch = batch.with_columns(
            expr.alias(name) for expr, name in zip(nothing, self.columns().signals, strict=True)
        )  # fmt: skip
        lines = self._lines(batch.filter(_has_host())) if verdicts.height else pl.DataFrame()
        if lines.height:
            boilerplate = verdicts.select("host_hash", "line_hash").unique()
            lines = lines.join(boilerplate, on=["host_hash", "line_hash"], how="semi", maintain_order="left")
        return self._edit(batch, lines) if lines.height else batch

    def _lines(self, batch: pl.DataFrame) -> pl.DataFrame:
        """Lists the lines that are looked at, in order: ``row``, hashes, place in the batch's text buffer, and text."""
        from dataeng.kernels.lines import hash_lines, list_lines
        from dataeng.kernels.text import text_buffers

        texts = text_buffers(batch.get_column(TEXT))
        lines = list_lines(texts, self.edge_lines)
        place = pl.Series("place", lines.text)
        hashes = hash_lines(texts, lines)
        hashes[hashes == _PAGE] = 1
        named = batch.select(*(name for name in ("part", "row") if name in batch.columns), _host_hash(batch))
        return named[place].with_columns(
            pl.Series("line_hash", hashes), pl.Series("start", lines.start - texts.offsets[lines.text]),
            pl.Series("stop", lines.stop - texts.offsets[lines.text]),
        )  # fmt: skip

    def _edit(self, batch: pl.DataFrame, removed: pl.DataFrame) -> pl.DataFrame:
        """Takes lines out of the texts of the rows that they name."""
        from dataeng.kernels.lines import without_lines
        from dataeng.kernels.text import text_buffers

        edited = batch.filter(pl.col("row").is_in(removed.get_column("row").unique().implode()))
        column = edited.get_column(TEXT)
        texts = text_buffers(column)
        places = edited.select("row").with_row_index("text")
        removed = removed.join(places, on="row", how="left", maintain_order="left")
        text = removed.get_column("text").cast(pl.Int64).to_numpy()
        left = without_lines(texts, text, removed.get_column("start").to_numpy() + texts.offsets[text])
        first = _sample(column, removed)
        result = edited.select(
            "row",
            left.alias("_left"),
            (column.str.len_chars().cast(pl.Int64) - left.str.len_chars().cast(pl.Int64)).alias(REMOVED_CHARS),
        ).join(first, on="row", how="left", maintain_order="left")  # fmt: skip
        batch = batch.update(result.select("row", REMOVED_LINES, REMOVED_CHARS, SAMPLE), on="row", how="left")
        batch = batch.join(result.select("row", "_left"), on="row", how="left", maintain_order="left")
        empty = pl.col("_left").str.strip_chars() == ""
        detail = pl.format("{} lines", REMOVED_LINES)
        batch = drop_where(batch, empty, "only_boilerplate", detail)
        kept = pl.when(pl.col("_left").is_not_null() & ~empty).then(pl.col("_left")).otherwise(pl.col(TEXT))
        return batch.with_columns(kept.alias(TEXT)).drop("_left")


def _has_host() -> pl.Expr:
    return pl.col("host").is_not_null() & (pl.col("host") != "") & pl.col(TEXT).is_not_null()


def _host_hash(batch: pl.DataFrame) -> pl.Series:
    from dataeng.kernels.hashing import hash_texts
    from dataeng.kernels.text import text_buffers

    return pl.Series("host_hash", hash_texts(text_buffers(batch.get_column("host")))[0])


def _ordered(table: pl.DataFrame) -> pl.DataFrame:
    """Puts counts in an order that depends on nothing but them."""
    columns = ("part", "host_hash", "line_hash", "host", "pages", "partition")
    return table.select(*columns).sort("host_hash", "line_hash", "part")


def _sample(column: pl.Series, removed: pl.DataFrame) -> pl.DataFrame:
    """Returns by ``row`` how many lines were removed, and the beginning of what they say."""
    # Bytes of a text, not characters: the offsets come from the kernel, and lines end between characters.
    source = pl.DataFrame({TEXT: column.cast(pl.Binary)})[removed.get_column("text")]
    lines = removed.with_columns(source.get_column(TEXT))
    head = pl.col(TEXT).bin.slice(pl.col("start"), pl.col("stop") - pl.col("start")).cast(pl.String)
    return lines.with_columns(head.str.slice(0, SAMPLE_CHARS).alias(SAMPLE)).group_by("row", maintain_order=True).agg(
        pl.len().cast(pl.Int64).alias(REMOVED_LINES), pl.col(SAMPLE).str.join("\n").str.slice(0, SAMPLE_CHARS)
    )  # fmt: skip
