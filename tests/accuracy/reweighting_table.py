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


def differences(runs: pl.DataFrame, column: str, baseline: str) -> dict[str, tuple[float, float, int]]:
    """Returns, for every method, the mean difference to ``baseline`` at equal seeds, its standard error, and seeds."""
    base = runs.filter(pl.col("method") == baseline).select("seed", pl.col(column).alias("baseline"))
    joined = runs.join(base, on="seed").with_columns((pl.col(column) - pl.col("baseline")).alias("difference"))
    found = {}
    for (method,), rows in joined.group_by("method", maintain_order=True):
        mean, deviation = mean_and_deviation(rows["difference"].to_list())
        found[str(method)] = mean, deviation / math.sqrt(len(rows)), len(rows)
    return found


def summary_rows(results: pl.DataFrame) -> list[list[str]]:
    """Returns the table of methods, its head first; differences are to the uniform mixture, below 0 is better."""
    runs = per_run(results)
    head = ["method", "starts from", "runs", "mean", "worst", "by tokens", "Δ mean", "Δ worst", "Δ by tokens"]
    changes = {column: differences(runs, column, UNIFORM) for column in ("mean", "worst", "by_tokens")}
    rows = [head]
    for (method, base, cost), found in runs.group_by("method", "base", "runs", maintain_order=True):
        row = [str(method), "" if method == base else str(base), str(cost)]
        row += [_plus_minus(*mean_and_deviation(found[column].to_list())) for column in changes]
        row += ["" if method == UNIFORM else _change(change.get(str(method))) for change in changes.values()]
        rows.append(row)
    return rows


def domain_rows(results: pl.DataFrame) -> list[list[str]]:
    """Returns, by method and domain, the mean difference to the uniform mixture at equal seeds; first its losses."""
    domains = results["domain"].unique(maintain_order=True).to_list()
    rows = [["method", *domains]]
    parts = {domain: results.filter(pl.col("domain") == domain) for domain in domains}
    uniform = results.filter(pl.col("method") == UNIFORM)
    tokens = {domain: int(part["tokens"][0]) for domain, part in parts.items()}
    rows.append(["tokens", *(f"{tokens[domain] / 1e3:,.0f}k" for domain in domains)])
    losses = [uniform.filter(pl.col("domain") == domain)["loss"].to_list() for domain in domains]
    rows.append(["uniform: loss", *(f"{mean_and_deviation(found)[0]:.3f}" for found in losses)])
    changes = {domain: differences(part, "loss", UNIFORM) for domain, part in parts.items()}
    for method in results["method"].unique(maintain_order=True).to_list():
        if method != UNIFORM:
            found = [changes[domain].get(method) for domain in domains]
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
        ("Held-out loss, nats per token: mean ± deviation over seeds; Δ ± standard error to uniform", summary_rows),
        ("Change of every domain's loss against uniform, mean over seeds", domain_rows),
        ("Mean weight over the run", weight_rows),
    ):
        print(f"\n{title}\n")
        _print(rows(results), markdown)
    changes = differences(per_run(results), "mean", UNIFORM)
    changes.pop(UNIFORM, None)
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
