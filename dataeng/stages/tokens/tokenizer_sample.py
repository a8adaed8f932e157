"""Which documents a tokenizer is trained on: a seeded sample in which small languages and domains get more room.

With temperature T over languages, a language with a share p of the text gets a share proportional to p^(1/T), as
multilingual models are sampled (XLM-R, arXiv:1911.02116, has 1/T = 0.3); the same for domains. A document's factor is
the product of both. What a group cannot fill goes to the others.

The table that tasks send has a row per document, and a row without id and text per group for what was left out of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import polars as pl

GROUP = ("domain", "language")
SCHEMA = {
    "partition": pl.UInt32(),
    "id": pl.String(),
    "text": pl.String(),
    "domain": pl.String(),
    "language": pl.String(),
    "order": pl.UInt64(),
    "left_out_bytes": pl.Int64(),
}
SIZE = pl.col("text").str.len_bytes().cast(pl.Int64)
Group = tuple[str, str]


def rows(batch: pl.DataFrame, seed: int, grouped: Iterable[str]) -> pl.DataFrame:
    """Returns the row of every document of a batch: its place in the sample is a hash of (seed, id).

    Args:
      grouped: the columns of `GROUP` that count; a batch may lack them.
    """
    from dataeng.kernels.hashing import hash_texts
    from dataeng.kernels.text import text_buffers

    keys = batch.select(pl.format("{}:{}", pl.lit(seed), "id").alias("key")).get_column("key")
    wanted = set(grouped) & set(batch.columns)
    return batch.select(
        pl.lit(0, dtype=pl.UInt32).alias("partition"),
        "id",
        "text",
        *[(pl.col(name).fill_null("") if name in wanted else pl.lit("")).alias(name) for name in GROUP],
        pl.Series("order", hash_texts(text_buffers(keys))[1]),
        pl.lit(0, dtype=pl.Int64).alias("left_out_bytes"),
    )


def combine(table: pl.DataFrame, limit_bytes: int) -> pl.DataFrame:
    """Keeps the documents of each group up to the one that crosses the limit, and the size of the others.

    That one too: without it, what comes after it in other tables would seem to fit.
    """
    documents = _ordered(table)
    fits = (SIZE.cum_sum() - SIZE).over(GROUP) < limit_bytes
    kept = documents.filter(fits)
    left_out = pl.concat(
        [
            documents.filter(~fits).select(*GROUP, SIZE.alias("left_out_bytes")),
            table.filter(pl.col("id").is_null()).select(*GROUP, "left_out_bytes"),
        ]
    )
    tallies = left_out.group_by(GROUP).agg(pl.col("left_out_bytes").sum()).filter(pl.col("left_out_bytes") > 0)
    missing = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in SCHEMA.items() if name not in tallies.columns]
    tallies = tallies.with_columns(missing).with_columns(pl.lit(0, dtype=pl.UInt32).alias("partition")).sort(GROUP)
    return pl.concat([tallies.select(SCHEMA.keys()), kept.select(SCHEMA.keys())])


def group_bytes(tables: Iterable[pl.DataFrame]) -> dict[Group, int]:
    """Returns how many bytes of text each group has in all tables, what was left out included."""
    sizes: dict[Group, int] = {}
    for table in tables:
        sums = table.group_by(GROUP).agg((SIZE.fill_null(0) + pl.col("left_out_bytes")).sum().alias("bytes"))
        for domain, language, size in sums.select(*GROUP, "bytes").iter_rows():
            sizes[domain, language] = sizes.get((domain, language), 0) + size
    return dict(sorted(sizes.items()))


def budgets(
    sizes: Mapping[Group, int], limit_bytes: int, domain_temperature: float, language_temperature: float
) -> dict[Group, int]:
    """Returns how many bytes of each group are taken: together at most ``limit_bytes``, and all there is if that fits.

    Args:
      sizes: bytes of text of each (domain, language).
      domain_temperature: 1 is natural, larger is flatter, infinity is uniform.
      language_temperature: likewise.
    """
    total = sum(sizes.values())
    if total <= limit_bytes:
        return dict(sizes)
    per_domain, per_language = ({key[i]: 0 for key in sizes} for i in range(2))
    for (domain, language), size in sizes.items():
        per_domain[domain] += size
        per_language[language] += size

    def weight(group: Group) -> float:
        domain_share, language_share = per_domain[group[0]] / total, per_language[group[1]] / total
        domain_factor = domain_share ** (1 / domain_temperature - 1)
        return float(sizes[group] * domain_factor * language_share ** (1 / language_temperature - 1))

    weights = {group: weight(group) for group, size in sizes.items() if size > 0}
    taken = {group: 0 for group in sizes}
    remaining = limit_bytes
    while weights:  # every round fills a group at least, or is the last
        scale = remaining / sum(weights.values())
        full = [group for group, group_weight in weights.items() if sizes[group] <= scale * group_weight]
        for group in full or weights:
            # Shares of a whole number may miss it by a rounding error, and a single group is to get all of it.
            taken[group] = sizes[group] if full else int(scale * weights[group] + 1e-6)
        if not full:
            break
        for group in full:
            remaining -= sizes[group]
            del weights[group]
    return taken


def sample(tables: Iterable[pl.DataFrame], limits: Mapping[Group, int]) -> pl.Series:
    """Returns the texts to train on, in order of their hashes; the last one of a group is cut between characters.

    Args:
      limits: of every group, the bytes to take. Tables are gone through one by one.
    """
    budget = pl.DataFrame(
        [(*group, limit) for group, limit in limits.items()],
        schema={**{name: pl.String() for name in GROUP}, "budget": pl.Int64()},
        orient="row",
    )
    kept = pl.DataFrame(schema={**SCHEMA, "budget": pl.Int64()})
    before = (SIZE.cum_sum() - SIZE).over(GROUP)
    for table in tables:
        some = table.filter(pl.col("id").is_not_null()).select(SCHEMA.keys()).join(budget, on=GROUP, how="left")
        kept = _ordered(pl.concat([kept, some])).filter(before < pl.col("budget"))
    # A group has one document that crosses its budget; only those are looked at in Python.
    crossing = kept.with_columns((pl.col("budget") - before).alias("room")).with_row_index("place")
    texts = crossing.get_column("text")
    for place, text, room in crossing.filter(pl.col("room") < SIZE).select("place", "text", "room").iter_rows():
        texts[place] = text.encode()[:room].decode(errors="ignore")
    return texts


def _ordered(table: pl.DataFrame) -> pl.DataFrame:
    return table.filter(pl.col("id").is_not_null()).sort("order", "id")
