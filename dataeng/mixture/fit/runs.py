"""The table of proxy runs: a row for each run, columns ``weight.DOMAIN`` for domains and ``loss.TARGET`` for losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dataeng.errors import ConfigError, FormatError, nearest
from dataeng.mixture.policies import Floats

WEIGHT, LOSS = "weight.", "loss."
#: Weights of a run may miss 1 by this much (published tables are rounded) and are then scaled.
SUM_TOLERANCE = 0.01
ROWS_NAMED = 3


@dataclass(frozen=True)
class ProxyRuns:
    """n runs over K domains with T losses each."""

    domains: tuple[str, ...]
    targets: tuple[str, ...]
    weights: Floats  # [n, K], rows sum to 1
    losses: Floats  # [n, T], in any unit that is better when smaller

    def __len__(self) -> int:
        return len(self.weights)

    def chosen(self, targets: Sequence[str]) -> ProxyRuns:
        """Returns the same runs with these losses alone; raises `ConfigError` for an unknown one."""
        for target in targets:
            if target not in self.targets:
                raise ConfigError(f"there is no loss '{target}' in the runs{nearest(target, self.targets)}")
        columns = [self.targets.index(target) for target in targets]
        return ProxyRuns(self.domains, tuple(targets), self.weights, self.losses[:, columns])


def read_runs(path: Path) -> ProxyRuns:
    """Reads a CSV or Parquet table; other columns than weights and losses are left alone.

    Raises `FormatError` naming columns and rows (from 1, the header not counted): no such columns, values that are no
    numbers, weights that are negative or do not sum to 1.
    """
    import polars as pl

    try:
        if path.suffix == ".csv":
            frame = pl.read_csv(path, infer_schema_length=None)
        elif path.suffix == ".parquet":
            frame = pl.read_parquet(path)
        else:
            raise ConfigError(f"{path}: proxy runs are read from .csv or .parquet, not '{path.suffix}'.")
    except OSError as error:
        raise FormatError(f"cannot read proxy runs {path}: {error.strerror or error}.") from error
    except pl.exceptions.PolarsError as error:
        raise FormatError(f"{path} is not a table: {str(error).splitlines()[0]}") from error
    found = {prefix: [name for name in frame.columns if name.startswith(prefix)] for prefix in (WEIGHT, LOSS)}
    for prefix, what in ((WEIGHT, "DOMAIN"), (LOSS, "TARGET")):
        if not found[prefix]:
            columns = ", ".join(frame.columns[:6]) + (" …" if len(frame.columns) > 6 else "")
            raise FormatError(f"{path} has no column {prefix}{what}; its columns are {columns}.")
    if not len(frame):
        raise FormatError(f"{path} has no runs.")
    for name in (*found[WEIGHT], *found[LOSS]):
        kind = frame.schema[name]
        if not kind.is_numeric():
            raise FormatError(f"{path}: column '{name}' holds {kind}, expected numbers.")
    weights = frame.select(found[WEIGHT]).cast(pl.Float64).to_numpy().astype(np.float64)
    losses = frame.select(found[LOSS]).cast(pl.Float64).to_numpy().astype(np.float64)
    for values, names in ((weights, found[WEIGHT]), (losses, found[LOSS])):
        for column, name in enumerate(names):
            _refuse(path, np.flatnonzero(~np.isfinite(values[:, column])), f"'{name}' is no finite number")
    for column, name in enumerate(found[WEIGHT]):
        _refuse(path, np.flatnonzero(weights[:, column] < 0), f"'{name}' is negative")
    sums = weights.sum(axis=1)
    wrong = np.flatnonzero(np.abs(sums - 1) > SUM_TOLERANCE)
    if len(wrong):
        _refuse(path, wrong, f"the weights sum to {sums[wrong[0]]:.4g}, expected 1")
    return ProxyRuns(
        tuple(name.removeprefix(WEIGHT) for name in found[WEIGHT]),
        tuple(name.removeprefix(LOSS) for name in found[LOSS]),
        weights / sums[:, None],
        losses,
    )


def _refuse(path: Path, rows: npt.NDArray[np.int64], what: str) -> None:
    if len(rows):
        listed = ", ".join(str(row + 1) for row in rows[:ROWS_NAMED].tolist())
        more = f" and {len(rows) - ROWS_NAMED} more" if len(rows) > ROWS_NAMED else ""
        raise FormatError(f"{path}: {what} in run {listed}{more}.")
