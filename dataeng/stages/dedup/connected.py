"""Connected components of a graph that is too large for one process, by contracting stars in partitions.

Every node knows its neighbours, and nobody knows more. In one round each node links those to the smallest node among
itself and them: larger neighbours always, smaller ones where they are not the smallest themselves (the *large-star*
and *small-star* operations of Kiveris et al. 2014, "Connected Components in MapReduce and Beyond", done together). No
link is lost, labels sink, and what is left in the end are stars: every component's smallest node with all others
around it. Near-duplicate graphs are stars to begin with and settle in two or three rounds; a chain of n in O(log n).

A link {a, b} travels as two rows, (node=a, neighbour=b) to the partition of a and the reverse to that of b. A node with
half the corpus around it is two numbers here, the smallest and the largest of its neighbours; its rows stream by.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import polars as pl

NODE, NEIGHBOUR = "node", "neighbour"
_MULTIPLIER = 0x9E3779B97F4A7C15


def node_partition(node: pl.Expr, partitions: int) -> pl.Expr:
    """Returns the partition of a node (UInt64)."""
    mixed = (node * pl.lit(_MULTIPLIER, dtype=pl.UInt64)) // (1 << 32)
    return (mixed % partitions).cast(pl.UInt32)


def link_rows(links: pl.DataFrame, partitions: int) -> pl.DataFrame:
    """Returns both rows of each link, with ``partition``; links of a node with itself, and repeated ones, go.

    Args:
      links: ``node, neighbour`` (UInt64), in any direction.
    """
    low, high = pl.min_horizontal(NODE, NEIGHBOUR), pl.max_horizontal(NODE, NEIGHBOUR)
    once = links.select(low.alias(NODE), high.alias(NEIGHBOUR)).filter(pl.col(NODE) != pl.col(NEIGHBOUR)).unique()
    both = pl.concat([once, once.select(pl.col(NEIGHBOUR).alias(NODE), pl.col(NODE).alias(NEIGHBOUR))])
    return both.sort(NODE, NEIGHBOUR).with_columns(node_partition(pl.col(NODE), partitions).alias("partition"))


def ranges_of(tables: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Returns for every node its smallest and largest neighbour: ``node, least, most``."""
    found: pl.DataFrame | None = None
    for table in tables:
        part = table.group_by(NODE).agg(pl.min(NEIGHBOUR).alias("least"), pl.max(NEIGHBOUR).alias("most"))
        if found is not None:
            part = pl.concat([found, part]).group_by(NODE).agg(pl.min("least"), pl.max("most"))
        found = part
    assert found is not None
    return found


def contract(ranges: pl.DataFrame, table: pl.DataFrame, partitions: int) -> pl.DataFrame:
    """Does one round for some rows of a partition.

    Args:
      ranges: of all nodes of the partition, from `ranges_of`.
      table: rows ``node, neighbour``.

    Returns:
      Rows for the next round, and ``changed`` where their node was not yet the middle or an end of a star. When no
      row says so, the rows are the stars.
    """
    smallest = pl.min_horizontal(NODE, "least")
    settled = (pl.col("least") > pl.col(NODE)) | (pl.col("least") == pl.col("most"))
    known = table.join(ranges, on=NODE, how="left", maintain_order="left")
    known = known.with_columns(smallest.alias("hub"), (~settled).alias("changed"))
    changed = bool(known.get_column("changed").any())
    larger = pl.col(NEIGHBOUR) > pl.col(NODE)
    moved = known.filter(larger | (pl.col(NEIGHBOUR) != pl.col("hub")))
    rows = link_rows(moved.select(pl.col(NEIGHBOUR).alias(NODE), pl.col("hub").alias(NEIGHBOUR)), partitions)
    return rows.with_columns(pl.lit(changed).alias("changed"))


def hubs_of(tables: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Returns for every node of a partition the middle of its star: ``node, hub``. Only after the last round."""
    return ranges_of(tables).select(NODE, pl.min_horizontal(NODE, "least").alias("hub"))


def components(links: pl.DataFrame, partitions: int = 1) -> Iterator[pl.DataFrame]:
    """Runs all rounds in this process and yields ``node, hub`` per partition; for tests and small graphs."""
    rows = link_rows(links, partitions)
    changed = rows.height > 0
    while changed:
        parts = rows.partition_by("partition", maintain_order=True)
        results = [contract(ranges_of([part]), part, partitions) for part in parts]
        changed = any(result.get_column("changed").any() for result in results)
        rows = pl.concat(results).drop("changed")
    for part in rows.partition_by("partition", maintain_order=True):
        yield hubs_of([part])
