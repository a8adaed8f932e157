"""From accepted pairs to verdicts: connected components, one survivor each, and the evidence.

    pairs ─► links ─► connect (repeated) ─► members by cluster ─► choose ─► verdicts

Three kinds of rows travel together, each to the partition of its ``node``: links of the graph, what is known of a
document, and which pair was accepted with which similarity. Only links change on the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from dataeng.stage import Slices
from dataeng.stages.dedup.buckets import FIRST_OLD_PLACE, part_of, row_of
from dataeng.stages.dedup.connected import contract, hubs_of, link_rows, node_partition, ranges_of
from dataeng.stages.dedup.survivors import Criterion, first_of, rank_columns

LINK, DOCUMENT, PAIR = 0, 1, 2

EVIDENCE: dict[str, pl.DataType] = {
    "part": pl.UInt32(),
    "row": pl.UInt32(),
    "id": pl.String(),
    "kept_id": pl.String(),
    "matched_id": pl.String(),
    "similarity": pl.Float64(),
    "method": pl.String(),
    "cluster_size": pl.UInt32(),
    "index_segment": pl.String(),
    "reason": pl.String(),
    "detail": pl.String(),
}
"""Columns of verdicts, and so of the evidence. ``matched_id`` is the document of the cluster that this one was found
similar to, with ``similarity``; null where no similarity was computed. ``index_segment`` is the segment of the dedup
index that the kept document is in; null where it is one of this run's."""

ROWS: dict[str, pl.DataType] = {
    "partition": pl.UInt32(),
    "kind": pl.UInt8(),
    "node": pl.UInt64(),
    "neighbour": pl.UInt64(),
    "similarity": pl.Float64(),
    "id": pl.String(),
    "segment": pl.String(),
}


def row_schema(table: pl.DataFrame, criteria: Sequence[Criterion]) -> dict[str, pl.DataType]:
    """Returns the columns of the rows that travel; the types of ranks are those of ``table``."""
    return {**ROWS, **{name: table.schema[name] for name in rank_columns(criteria)}}


def conformed(table: pl.DataFrame, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    """Returns the rows with all columns of the schema, null where they are missing, in its order."""
    missing = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in schema.items() if name not in table.columns]
    return table.with_columns(missing).select(list(schema))


def document_rows(documents: pl.DataFrame, partitions: int) -> pl.DataFrame:
    """Returns rows about documents: from ``place, id`` and rank columns."""
    return documents.with_columns(
        pl.lit(DOCUMENT, dtype=pl.UInt8).alias("kind"),
        pl.col("place").alias("node"),
        node_partition(pl.col("place"), partitions).alias("partition"),
    ).drop("place")


def pair_rows(pairs: pl.DataFrame, partitions: int) -> Iterator[pl.DataFrame]:
    """Yields the links and the evidence of accepted pairs: from ``place, partner, similarity``."""
    links = link_rows(pairs.select(pl.col("place").alias("node"), pl.col("partner").alias("neighbour")), partitions)
    yield links.with_columns(pl.lit(LINK, dtype=pl.UInt8).alias("kind"))
    found = pairs.select(pl.col("place").alias("node"), pl.col("partner").alias("neighbour"), "similarity")
    # A partner keeps the best of its pairs; a hub has many.
    best = found.sort("similarity", "node", descending=[True, False], nulls_last=True).unique("neighbour", keep="first")
    reverse = best.select(pl.col("neighbour").alias("node"), pl.col("node").alias("neighbour"), "similarity")
    yield pl.concat([found, reverse.sort("node")]).with_columns(
        pl.lit(PAIR, dtype=pl.UInt8).alias("kind"),
        node_partition(pl.col("node"), partitions).alias("partition"),
    )


def connect(slices: Slices, partitions: int) -> Iterator[pl.DataFrame]:
    """Does one round of a repeated step: rows of all kinds in, rows of all kinds out, with ``changed``."""
    if not _any_links(slices):
        return  # documents that nobody is similar to: nothing more to say of them
    ranges = ranges_of(_links(slices))
    for table in slices:
        schema = {**table.schema, "changed": pl.Boolean()}
        # Documents without a link are left behind.
        others = table.filter(pl.col("kind") != LINK).join(ranges, on="node", how="semi", maintain_order="left")
        yield conformed(others.with_columns(pl.lit(False).alias("changed")), schema)
        links = table.filter(pl.col("kind") == LINK)
        moved = contract(ranges, links.select("node", "neighbour"), partitions)
        yield conformed(moved.with_columns(pl.lit(LINK, dtype=pl.UInt8).alias("kind")), schema)


def members(slices: Slices, partitions: int) -> Iterator[pl.DataFrame]:
    """Yields the documents of clusters, to the partition of their cluster's hub, each with its best accepted pair.

    Rows: ``partition, hub, place, id, partner, similarity`` and ranks.
    """
    if not _any_links(slices):
        return
    hubs = hubs_of(_links(slices))
    best = _best_pairs(slices)
    for table in slices:
        documents = table.filter(pl.col("kind") == DOCUMENT).drop("partition", "kind", "neighbour", "similarity")
        found = documents.join(hubs, on="node", how="inner", maintain_order="left")
        found = found.join(best, on="node", how="left", maintain_order="left").rename({"node": "place"})
        yield found.with_columns(node_partition(pl.col("hub"), partitions).alias("partition"))


def _links(slices: Slices) -> Iterator[pl.DataFrame]:
    return (table.filter(pl.col("kind") == LINK).select("node", "neighbour") for table in slices)


def _any_links(slices: Slices) -> bool:
    return any(table.height for table in _links(slices))


def _best_pairs(slices: Slices) -> pl.DataFrame:
    """Returns ``node, partner, similarity``: the most similar one of each document's accepted pairs."""
    found: pl.DataFrame | None = None
    for table in slices:
        part = table.filter(pl.col("kind") == PAIR).select("node", "neighbour", "similarity")
        part = part if found is None else pl.concat([found, part])
        part = part.sort("node", "similarity", "neighbour", descending=[False, True, False], nulls_last=True)
        found = part.unique("node", keep="first", maintain_order=True)
    assert found is not None
    return found.rename({"neighbour": "partner"})


def choose(slices: Slices, criteria: Sequence[Criterion], method: str | pl.Expr, reason: str) -> Iterator[pl.DataFrame]:
    """Yields verdicts about all but one document of each cluster; about all new ones, if there are old ones.

    Args:
      slices: rows of `members`.
      method: what found a row's ``partner``.
    """
    kept: pl.DataFrame | None = None
    sizes: pl.DataFrame | None = None
    for table in slices:
        first = table.drop("partition", "partner", "similarity")
        kept = first_of(first if kept is None else pl.concat([kept, first]), "hub", criteria)
        size = table.group_by("hub").agg(pl.len().cast(pl.UInt32).alias("cluster_size"))
        sizes = size if sizes is None else pl.concat([sizes, size]).group_by("hub").agg(pl.sum("cluster_size"))
    assert kept is not None and sizes is not None
    partners = _names_of_partners(slices)
    kept = kept.select(
        "hub",
        pl.col("id").alias("kept_id"),
        pl.col("place").alias("kept_place"),
        pl.col("segment").alias("index_segment"),
    )
    clusters = kept.join(sizes, on="hub", how="left")
    for table in slices:
        found = table.join(clusters, on="hub", how="left", maintain_order="left")
        removed = found.filter((pl.col("place") != pl.col("kept_place")) & (pl.col("place") < FIRST_OLD_PLACE))
        removed = removed.join(partners, on="partner", how="left", maintain_order="left")
        yield _verdicts(removed, method, reason)


def _names_of_partners(slices: Slices) -> pl.DataFrame:
    """Returns ``partner, matched_id`` for all documents that are the partner of one in these clusters."""
    wanted = pl.concat([table.select("partner").unique() for table in slices]).unique()
    names = [
        table.select(pl.col("place").alias("partner"), pl.col("id").alias("matched_id")).join(
            wanted, on="partner", how="semi"
        )
        for table in slices
    ]
    return pl.concat(names)


def _verdicts(removed: pl.DataFrame, method: str | pl.Expr, reason: str) -> pl.DataFrame:
    similarity = pl.col("similarity").round(3)
    detail = (
        pl.when(pl.col("similarity").is_null())
        .then(pl.format("near-duplicate of {}", "kept_id"))
        .when(pl.col("matched_id") == pl.col("kept_id"))
        .then(pl.format("near-duplicate of {} (similarity {})", "kept_id", similarity))
        .otherwise(pl.format("near-duplicate of {} through {} (similarity {})", "kept_id", "matched_id", similarity))
    )
    where = pl.when(pl.col("index_segment").is_not_null()).then(pl.format(", in index segment {}", "index_segment"))
    return removed.with_columns(
        part_of("place").alias("part"),
        row_of("place").alias("row"),
        (pl.lit(method) if isinstance(method, str) else method).alias("method"),
        pl.lit(reason).alias("reason"),
        (detail + where.otherwise(pl.lit(""))).alias("detail"),
    ).select(list(EVIDENCE))
