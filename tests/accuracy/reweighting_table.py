"""What the results of `tests.accuracy.reweighting` say: means over seeds, and differences at equal seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl

UNIFORM = "uniform"


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean and the standard deviation of the sample; NaN for a single one."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def per_run(results: pl.DataFrame) -> pl.DataFrame:
    """Returns one row a run: losses averaged over domains, by their tokens, and that of the worst domain."""
    tokens = pl.col("tokens")
    return results.group_by("method", "base", "seed", "runs", maintain_order=True).agg(
        pl.col("loss").mean().alias("mean"),
        pl.col("loss").max().alias("worst"),
        ((pl.col("loss") * tokens).sum() / tokens.sum()).alias("by_tokens"),
    )


def differences(runs: pl.DataFrame, column: str) -> dict[str, tuple[float, float, int]]:
    """Returns, for every method but uniform, the mean difference at equal seeds, its standard error, and their number.

    Compared is with the mixture that a method starts from; the mixtures themselves are compared with uniform.
    """
    baseline = pl.when(pl.col("base") == pl.col("method")).then(pl.lit(UNIFORM)).otherwise(pl.col("base"))
    bases = runs.select(pl.col("method").alias("baseline"), "seed", pl.col(column).alias("before"))
    joined = runs.with_columns(baseline.alias("baseline")).join(bases, on=["baseline", "seed"], maintain_order="left")
    joined = joined.filter(pl.col("method") != UNIFORM)
    found = {}
    for (method,), rows in joined.group_by("method", maintain_order=True):
        mean, deviation = mean_and_deviation((rows[column] - rows["before"]).to_list())
        found[str(method)] = mean, deviation / math.sqrt(len(rows)), len(rows)
    return found


def summary_rows(results: pl.DataFrame) -> list[list[str]]:
    """Returns the table of methods, its head first; differences are those of `differences`, below 0 is better."""
    runs = per_run(results)
    head = ["method", "starts from", "runs", "mean", "worst", "by tokens", "Δ mean", "Δ worst", "Δ by tokens"]
    changes = {column: differences(runs, column) for column in ("mean", "worst", "by_tokens")}
    rows = [head]
    for (method, base, cost), found in runs.group_by("method", "base", "runs", maintain_order=True):
        row = [str(method), "" if method == base else str(base), str(cost)]
        row += [_plus_minus(*mean_and_deviation(found[column].to_list())) for column in changes]
        row += [_change(change.get(str(method))) for change in changes.values()]
        rows.append(row)
    return rows


def domain_rows(results: pl.DataFrame) -> list[list[str]]:
    """Returns, by method and domain, the mean of `differences`; before them tokens, and the losses of uniform."""
    domains = results["domain"].unique(maintain_order=True).to_list()
    parts = {domain: results.filter(pl.col("domain") == domain) for domain in domains}
    tokens = {domain: int(part["tokens"][0]) for domain, part in parts.items()}
    losses = [part.filter(pl.col("method") == UNIFORM)["loss"].to_list() for part in parts.values()]
    rows = [
        ["method", *domains],
        ["tokens", *(f"{tokens[domain] / 1e3:,.0f}k" for domain in domains)],
        ["uniform: loss", *(f"{mean_and_deviation(found)[0]:.3f}" for found in losses)],
    ]
    changes = [differences(part, "loss") for part in parts.values()]
    for method in results["method"].unique(maintain_order=True).to_list():
        if method != UNIFORM:
            found = [change.get(method) for change in changes]
            rows.append([method, *("" if one is None else f"{one[0]:+.3f}" for one in found)])
    return rows


def weight_rows(results: pl.DataFrame) -> list[list[str]]:
    """Returns, by method and domain, the mean weight over the run and over seeds."""
    domains = results["domain"].unique(maintain_order=True).to_list()
    means = results.group_by("method", "domain", maintain_order=True).agg(pl.col("weight").mean())
    rows = [["method", *domains]]
    for (method,), found in means.group_by("method", maintain_order=True):
        weights = dict(found.select("domain", "weight").iter_rows())
        rows.append([str(method), *(f"{weights[domain]:.3f}" for domain in domains)])
    return rows


def print_tables(results: pl.DataFrame, markdown: bool) -> None:
    """Prints all three tables, and a last line of ``key=value`` figures."""
    for title, rows in (
        (
            "Held-out loss, nats per token: mean ± deviation over seeds; Δ to where it starts, ± standard error",
            summary_rows,
        ),
        (
            "Change of every domain's loss against where the method starts (mixtures: uniform), mean over seeds",
            domain_rows,
        ),
        ("Mean weight over the run", weight_rows),
    ):
        print(f"\n{title}\n")
        _print(rows(results), markdown)
    changes = differences(per_run(results), "mean")
    figures = f"methods={results['method'].n_unique()} seeds={results['seed'].n_unique()}"
    if changes:
        best = min(changes, key=lambda method: changes[method][0])
        figures += f" best={best} delta_mean={changes[best][0]:.4f} standard_error={changes[best][1]:.4f}"
    print(f"\n{figures}")


def _print(rows: list[list[str]], markdown: bool) -> None:
    if markdown:
        head, *body = rows
        for row in [head, ["---", *["---:"] * (len(head) - 1)], *body]:
            print(f"| {' | '.join(row)} |")
        return
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print(
            "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
        )


def _plus_minus(mean: float, deviation: float) -> str:
    return f"{mean:.3f}" if math.isnan(deviation) else f"{mean:.3f} ± {deviation:.3f}"


def _change(change: tuple[float, float, int] | None) -> str:
    if change is None:
        return ""
    mean, error, _ = change
    return f"{mean:+.3f}" if math.isnan(error) else f"{mean:+.3f} ± {error:.3f}"
