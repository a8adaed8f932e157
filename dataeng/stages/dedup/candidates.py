"""Candidates on their way: fetched from the documents of a part, verified in the partition of their hub.

Two kinds of rows travel together: what is known of a document (its id, and what the survivor goes by), to the partition
of the document; and candidates with what they are compared by, to the partition of the hub that they are compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import polars as pl

from dataeng.stage import Slices
from dataeng.stages.dedup.buckets import FIRST_OLD_PLACE, place_of
from dataeng.stages.dedup.clusters import conformed, document_rows, pair_rows, row_schema
from dataeng.stages.dedup.connected import node_partition
from dataeng.stages.dedup.index_reading import IndexReader
from dataeng.stages.dedup.survivors import Criterion, ranks
from dataeng.stages.dedup.verification import Similarity, accepted_pairs

CANDIDATE = 3
"""The kind of rows about candidates, beside those of `dataeng.stages.dedup.clusters`."""

SHINGLE_BITS: Literal[32] = 32
"""Half of 64 bits to send about, for similarities that are off by 0.0001 at the very most now and then (see
`dataeng.kernels.shingle_sets`)."""
SHINGLES = pl.List(pl.UInt32())

ShinglesOf = Callable[[pl.Series], pl.Series]
"""Texts → their sets of shingle hashes: `SHINGLES`, sorted and unique."""


def candidate_rows(
    batch: pl.DataFrame,
    rows: pl.DataFrame,
    criteria: Sequence[Criterion],
    partitions: int,
    shingles_of: ShinglesOf | None,
    signature_of: ShinglesOf | None = None,
) -> pl.DataFrame:
    """Returns what a visit sends about the documents of a batch that ``rows`` ask for.

    Args:
      rows: ``row, hub``, and ``similarity`` where it is known already.
      shingles_of: None if nothing will be compared.
      signature_of: texts → their signatures; None unless they will be compared with those of old documents.
    """
    from dataeng.kernels.hashing import hash_texts
    from dataeng.kernels.text import text_buffers

    columns = [name for name in ("row", "hub", "similarity") if name in rows.columns]
    pairs = rows.select(columns).unique(["row", "hub"], maintain_order=True)
    wanted = batch.join(pairs, on="row", how="semi", maintain_order="left")
    known = wanted.select("row", place_of().alias("place"), "id", *ranks(criteria))
    schema = {**row_schema(known, criteria), "content": pl.UInt64(), "shingles": SHINGLES}
    texts = wanted.get_column("text")
    found = known.select("row", pl.col("place").alias("node")).with_columns(
        pl.Series("content", hash_texts(text_buffers(texts))[1]),
    )
    if shingles_of is not None:
        found = found.with_columns(shingles_of(texts).alias("shingles"))
    if signature_of is not None:
        found = found.with_columns(signature_of(texts).alias("signature"))
        schema["signature"] = found.schema["signature"]
    found = pairs.join(found, on="row", how="inner").sort("node", "hub")
    found = found.with_columns(
        pl.lit(CANDIDATE, dtype=pl.UInt8).alias("kind"),
        pl.col("hub").alias("neighbour"),
        node_partition(pl.col("hub"), partitions).alias("partition"),
    )
    documents = document_rows(known.drop("row"), partitions)
    return pl.concat([conformed(documents, schema), conformed(found, schema)])


def verified_rows(
    slices: Slices,
    criteria: Sequence[Criterion],
    partitions: int,
    threshold: float | None,
    measure: Similarity,
    old: IndexReader | None = None,
    kept: Sequence[str] = (),
) -> Iterator[pl.DataFrame]:
    """Turns candidates into accepted pairs; what is known of documents passes by.

    Args:
      old: where hubs that are old documents are.
      kept: what they are compared by, ``shingles`` or ``signature``.
    """
    schema: dict[str, pl.DataType] = {}
    for table in slices:
        schema = row_schema(table, criteria)
        yield conformed(table.filter(pl.col("kind") != CANDIDATE), schema)
    hubs = _old_hubs(slices, old, kept) if old is not None else None
    if hubs is not None:
        known = hubs.select(pl.col("hub").alias("place"), "id", "segment")
        yield conformed(document_rows(known, partitions), schema)
        hubs = hubs.drop("id", "segment")
    for pairs in accepted_pairs(_Candidates(slices), threshold, measure, old=hubs):
        for rows in pair_rows(pairs, partitions):
            yield conformed(rows, schema)


def _old_hubs(slices: Slices, old: IndexReader, kept: Sequence[str]) -> pl.DataFrame | None:
    """Returns ``hub, id, segment`` and what is kept of the hubs that are old documents; None if there are none."""
    asked = [
        table.select("hub").filter(pl.col("hub") >= FIRST_OLD_PLACE).unique() for table in _Candidates(slices)
    ]  # fmt: skip
    found = list(old.documents(pl.concat(asked).get_column("hub"), ["id", *kept]))
    return pl.concat(found).rename({"place": "hub"}) if found else None


class _Candidates:
    """The candidates among the rows of a partition, as `accepted_pairs` reads them."""

    def __init__(self, slices: Slices) -> None:
        self._slices, self.num_rows = slices, slices.num_rows

    def __iter__(self) -> Iterator[pl.DataFrame]:
        for table in self._slices:
            yield table.filter(pl.col("kind") == CANDIDATE).select(
                pl.col("node").alias("place"),
                pl.col("neighbour").alias("hub"),
                pl.col("content", "shingles", "similarity", *(["signature"] if "signature" in table.columns else [])),
            )

    def collect(self) -> pl.DataFrame | None:
        return pl.concat(list(self))
