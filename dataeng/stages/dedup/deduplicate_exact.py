"""Exact deduplication: of documents with the same text, or the same URL, one stays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal, Self

import polars as pl
from pydantic import Field, field_validator, model_validator

from dataeng.stage import Columns, ExchangeStage, OutputFiles, Slices
from dataeng.stages.dedup.redirects import COLUMNS, KEY, PERMANENT, TARGET, follow_redirects, usable_redirects
from dataeng.stages.dedup.survivors import Survivor, first_of, rank_columns, ranks, survivor_columns
from dataeng.stages.ingest.tracking_parameters import parameters_of

REDIRECT = "redirect"
#: by → reason, what evidence says, similarity of the texts (null: nobody looked at them)
FOUND: dict[str, tuple[str, str, float | None]] = {
    "text": ("exact_duplicate", "same text as {}", 1.0),
    "normalized_text": ("normalized_duplicate", "same normalized text as {}", 1.0),
    "url": ("url_duplicate", "same URL as {}", None),
}
NO_WORDS_SEED = 1
"""Texts without words are hashed as they are, apart from those with words."""


class DeduplicateExact(ExchangeStage):
    """Keeps one of all documents that are the same ``by``

    - ``text``: byte for byte;
    - ``normalized_text``: after Unicode's compatibility caseless match (NFKC and case folding), with every run of white
      space and punctuation as one space, and without soft hyphens and other format characters; symbols, digits and
      accents count. Texts of nothing but punctuation are compared as they are;
    - ``url``: by their canonical URL: without scheme, ``www.``, default port, user, fragment, tracking and session
      parameters, final slash; with percent-encoding, international host names and dot segments normalised and the other
      parameters sorted by name. A document whose URL a crawl record of the same run redirects permanently (301,
      308) has the target's URL, unless that is a home page. Documents without a valid URL are kept.

    Keys are compared by a 128-bit hash. Of the documents with the same key the first by ``survivor`` stays; without it,
    and among equals, the one that comes first in the input: lowest part (input files in sorted order), then lowest row.
    Redirects are seen if no other corpus-wide stage comes before this one.
    """

    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("ada-url",)
    kernels: ClassVar[tuple[str, ...]] = ("hashing", "normalized_text", "canonical_urls")

    by: Literal["text", "normalized_text", "url"] = Field(default="text", description="What must be the same")
    survivor: Survivor = Field(
        default=(), description="Which one stays: columns in order of importance, e.g. `date desc`, `text_bytes desc`"
    )
    dropped_parameters: tuple[str, ...] = Field(
        default=("@tracking", "@session"),
        description="With `by: url`: query parameters that do not count; names, beginnings (`utm_*`), lists",
    )
    redirects: bool = Field(default=True, description="With `by: url`: whether permanent redirects are followed")

    @field_validator("dropped_parameters")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        parameters_of(names)
        return names

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        given = self.model_fields_set & {"dropped_parameters", "redirects"}
        if self.by != "url" and given:
            raise ValueError(f"'{min(given)}' goes with 'by: url', not with 'by: {self.by}'")
        return self

    def needed_kernels(self) -> tuple[str, ...]:
        return ("hashing", *{"text": (), "normalized_text": ("normalized_text",), "url": ("canonical_urls",)}[self.by])

    def columns(self) -> Columns:
        read = "url" if self.by == "url" else "text"
        return Columns(reads=tuple(dict.fromkeys(("id", read, *survivor_columns(self.survivor)))))

    @property
    def _follows(self) -> bool:
        return self.by == "url" and self.redirects

    def steps(self) -> tuple[str, ...]:
        return ("redirects", "duplicates") if self._follows else ("duplicates",)

    def repeats(self, step: int) -> bool:
        return self._follows and step == 0

    def reads_rejects(self) -> tuple[str, ...]:
        return (REDIRECT,) if self._follows else ()

    def emit(self, batch: pl.DataFrame) -> pl.DataFrame:
        rows = batch.select("part", "row", "id", *ranks(self.survivor)).with_columns(self._keys(batch))
        if self._follows:
            empty = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in COLUMNS.items()]
            rows = rows.with_columns(empty).with_columns(pl.lit(0, dtype=pl.UInt8).alias("hops"))
        return self._sent(rows.filter(pl.col("hash_low").is_not_null()))

    def emit_rejects(self, rejects: pl.DataFrame) -> pl.DataFrame:
        from dataeng.stages.ingest.canonical_url import canonical_urls, resolved

        # A source that has no status has said all that it knows by calling it a redirect.
        stated = pl.col("http_status").is_in(PERMANENT) if "http_status" in rejects.columns else pl.lit(True)
        permanent = rejects.filter(stated)
        urls = permanent.get_column("url")
        targets = canonical_urls(resolved(urls, permanent.get_column("detail")), self.dropped_parameters)
        sources = canonical_urls(urls, self.dropped_parameters)
        document = [pl.lit(None, dtype=pl.UInt32).alias("part"), pl.lit(None, dtype=pl.UInt32).alias("row")]
        rows = permanent.select(
            *document, pl.lit(None, dtype=pl.String).alias("id"), *ranks(self.survivor), pl.col("date").alias("seen")
        ).with_columns(
            *_hashes(sources, KEY),
            *_hashes(targets, TARGET),
            pl.lit(None, dtype=pl.UInt8).alias("hops"),
        )
        return self._sent(rows.filter(usable_redirects(sources, targets)))

    def _sent(self, rows: pl.DataFrame) -> pl.DataFrame:
        partition = (pl.col("hash_low") % self.num_partitions).cast(pl.UInt32).alias("partition")
        columns = ("part", "row", "id", *rank_columns(self.survivor), *KEY, *(COLUMNS if self._follows else ()))
        return rows.select(*columns, partition)

    def _keys(self, batch: pl.DataFrame) -> list[pl.Series]:
        """Returns the two halves of every document's key; null if it has none."""
        if self.by == "url":
            from dataeng.stages.ingest.canonical_url import canonical_urls

            return _hashes(canonical_urls(batch.get_column("url"), self.dropped_parameters), KEY)
        texts = batch.get_column("text")
        return _hashes(texts.fill_null(""), KEY) if self.by == "text" else _normalized_hashes(texts.fill_null(""), KEY)

    def reduce_slices(self, step: int, slices: Slices, outputs: OutputFiles) -> Iterator[pl.DataFrame]:
        if self._follows and step == 0:
            return follow_redirects(slices, self.num_partitions)
        return self._duplicates(slices)

    def _duplicates(self, slices: Slices) -> Iterator[pl.DataFrame]:
        """Yields verdicts in two passes: which document of each key stays, then all the others."""
        firsts = self._firsts(slices)
        if firsts.height == 0:
            return
        reason, detail, similarity = FOUND[self.by]
        for table in slices:
            others = _documents(table).join(firsts, on=KEY, how="inner", maintain_order="left")
            others = others.filter(pl.col("place") != pl.col("kept_place"))
            hops = pl.col("hops") + pl.col("kept_hops") > 0 if self._follows else pl.lit(False)
            yield others.select(
                "part",
                "row",
                "id",
                "kept_id",
                pl.col("kept_id").alias("matched_id"),
                pl.lit(similarity, dtype=pl.Float64).alias("similarity"),
                pl.when(hops).then(pl.lit("redirect")).otherwise(pl.lit(self.by)).alias("method"),
                "cluster_size",
                pl.lit(reason).alias("reason"),
                pl.when(hops)
                .then(pl.format("a redirect makes it the same URL as {}", "kept_id"))
                .otherwise(pl.format(detail, "kept_id"))
                .alias("detail"),
            )

    def _firsts(self, slices: Slices) -> pl.DataFrame:
        """Returns, for every key with several documents, the one that stays and how many there are.

        Held in memory is one row per different key, whatever the number of documents.
        """
        found: list[pl.DataFrame] = []
        for table in slices:
            found.append(self._first_of_each(_documents(table).with_columns(pl.lit(1, pl.UInt32).alias("documents"))))
            # As in a merge sort: small tables together before they meet the large one.
            while len(found) > 1 and found[-2].height < 2 * found[-1].height:
                found.append(self._first_of_each(pl.concat([found.pop(-2), found.pop()])))
        kept = self._first_of_each(pl.concat(found)).filter(pl.col("documents") > 1)
        renamed = {"place": "kept_place", "id": "kept_id", "documents": "cluster_size", "hops": "kept_hops"}
        return kept.select(*KEY, *(pl.col(c).alias(new) for c, new in renamed.items() if c in kept.columns))

    def _first_of_each(self, table: pl.DataFrame) -> pl.DataFrame:
        counted = table.with_columns(pl.sum("documents").over(KEY).cast(pl.UInt32))
        hops = ("hops",) if self._follows else ()
        return first_of(
            counted.select(*KEY, "place", "id", "documents", *rank_columns(self.survivor), *hops), KEY, self.survivor
        )


def _documents(table: pl.DataFrame) -> pl.DataFrame:
    """Returns the rows about documents, with ``place``: one number that sorts as (part, row) does."""
    place = pl.col("part").cast(pl.UInt64) * (1 << 32) + pl.col("row")
    return table.filter(pl.col("part").is_not_null()).with_columns(place.alias("place"))


def _hashes(texts: pl.Series, names: tuple[str, str], seed: int = 0) -> list[pl.Series]:
    """Returns the low and high halves of 128-bit hashes, called ``names``; null where there is no text."""
    from dataeng.kernels.hashing import hash_texts
    from dataeng.kernels.text import text_buffers

    high, low = hash_texts(text_buffers(texts), seed)
    given, nothing = texts.is_not_null(), pl.Series([None], dtype=pl.UInt64)
    return [pl.Series(name, half).zip_with(given, nothing) for name, half in zip(names, (low, high), strict=True)]


def _normalized_hashes(texts: pl.Series, names: tuple[str, str]) -> list[pl.Series]:
    """Returns hashes of normalised texts; of the texts themselves where nothing is left of them."""
    import numpy as np

    from dataeng.kernels.hashing import hash_texts
    from dataeng.kernels.normalized_text import normalized_texts
    from dataeng.kernels.text import text_buffers

    forms = normalized_texts(text_buffers(texts))
    high, low = hash_texts(forms)
    wordless = np.flatnonzero(np.diff(forms.offsets) == 0)
    if len(wordless):
        high[wordless], low[wordless] = hash_texts(text_buffers(texts.gather(wordless)), NO_WORDS_SEED)
    return [pl.Series(name, half) for name, half in zip(names, (low, high), strict=True)]
