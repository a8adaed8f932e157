"""SQL over a run: its tables as DuckDB views, in a connection that can read the run folder and nothing else.

documents         what the run left           rejects    what it dropped, with stage and reason
signals           measurements, all documents stages     documents and bytes per stage and part
drops             … per reason                dedup      removed id, kept id, cluster size
packs             tokenized documents         training   per-domain losses of training runs
training_steps    per-step totals of training runs
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dataeng.engine.records import TaskRecord
from dataeng.engine.runner import load_records
from dataeng.errors import ConfigError, DataengError
from dataeng.formats.atomic import read_json

if TYPE_CHECKING:
    import duckdb


def connect(run_dir: Path) -> duckdb.DuckDBPyConnection:
    """Opens an in-memory DuckDB with a view per table of the run.

    Raises:
      ConfigError: the folder holds no run.
    """
    import duckdb

    if not run_dir.is_dir():
        raise ConfigError(f"there is no run at {run_dir}.")
    sources = _views(run_dir)
    if not sources:
        raise ConfigError(f"{run_dir} holds no run: neither run.json nor training metrics are there.")
    connection = duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})
    for name, select in sources.items():
        connection.execute(f"CREATE VIEW {name} AS {select}")
    # From here on a query can read this folder and nothing else on the machine.
    connection.execute(f"SET allowed_directories = [{_quote(str(run_dir.resolve()) + '/')}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _views(run_dir: Path) -> dict[str, str]:
    run_dir = run_dir.resolve()
    views: dict[str, str] = {}
    if (run_dir / "run.json").exists():
        views |= _run_views(run_dir, load_records(run_dir))
    for view, folder in (("training", "metrics"), ("training_steps", "steps")):
        parts = sorted(run_dir.glob(f"{folder}/part-*.parquet")) + sorted(
            run_dir.glob(f"training/*/{folder}/part-*.parquet")
        )
        if parts:
            views[view] = f"SELECT * FROM {_read(parts)}"
    return views


def _run_views(run_dir: Path, records: dict[str, list[TaskRecord]]) -> dict[str, str]:
    run = read_json(run_dir / "run.json")
    row_phases = [phase["name"] for phase in run["phases"] if phase["kind"] == "rows" and phase["name"] in records]
    views: dict[str, str] = {}
    if row_phases:
        views["documents"] = f"SELECT * FROM {_read(_files(run_dir, records[row_phases[-1]], 'documents'))}"
        rejects = [path for name in row_phases for path in _files(run_dir, records[name], "rejects")]
        views["rejects"] = f"SELECT * FROM {_read(rejects)}"
        signals = [_files(run_dir, records[name], "signals") for name in row_phases]
        views |= _signals_view([paths for paths in signals if paths])
    dedup = [
        f"SELECT {_quote(phase['exchange'])} AS stage, * FROM {_read(paths)}"
        for phase in run["phases"]
        if phase["kind"] == "reduce" and phase["name"] in records
        for paths in [_verdicts(run_dir, records[phase["name"]])]
        if paths
    ]
    if dedup:
        views["dedup"] = " UNION ALL BY NAME ".join(dedup)
    for name in ("stages", "drops"):
        if (run_dir / "stats" / f"{name}.parquet").exists():
            views[name] = f"SELECT * FROM {_read([run_dir / 'stats' / f'{name}.parquet'])}"
    docs = [
        run_dir / "packs" / shard["domain"] / shard["shard"]["files"]["docs"]["name"]
        for name in row_phases[-1:]
        for record in records[name]
        for shards in record.shards.values()
        for shard in shards
        if "docs" in shard.get("shard", {}).get("files", {})
    ]
    if docs:
        views["packs"] = f"SELECT * FROM {_read(docs)}"
    return views


def _files(run_dir: Path, records: list[TaskRecord], kind: str) -> list[Path]:
    return [run_dir / file.name for record in records for file in record.files if file.kind == kind]


def _verdicts(run_dir: Path, records: list[TaskRecord]) -> list[Path]:
    """Files with verdicts; a partition without any wrote an empty table that lacks the evidence columns."""
    files = [file for record in records for file in record.files if file.kind == "exchange"]
    return [run_dir / file.name for file in files if file.num_rows and file.name.startswith("dedup/")]


def _signals_view(groups: list[list[Path]]) -> dict[str, str]:
    """Later phases add signals to documents that are still there; the first one has a row for every document."""
    if not groups:
        return {}
    select = f"SELECT * FROM {_read(groups[0])}"
    for paths in groups[1:]:
        select = f"SELECT * FROM ({select}) LEFT JOIN {_read(paths)} USING (id)"
    return {"signals": select}


def _read(paths: list[Path]) -> str:
    return f"read_parquet([{', '.join(_quote(str(path)) for path in paths)}], union_by_name = true)"


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def query(run_dir: Path, statement: str) -> tuple[list[str], list[tuple[object, ...]]]:
    """Runs one statement; returns column names and rows.

    Raises:
      DataengError: the statement is wrong, or reaches for something outside the run folder.
    """
    import duckdb

    with connect(run_dir) as connection:
        try:
            result = connection.execute(statement)
            columns = [column[0] for column in result.description or []]
            return columns, result.fetchall()
        except duckdb.Error as error:
            raise DataengError(f"SQL: {error}") from error
