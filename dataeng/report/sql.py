"""SQL over a run: its tables as DuckDB views, in a connection that can read the run folder and nothing else.

documents         what the run left           rejects    what it dropped, with stage and reason
signals           measurements, all documents stages     documents and bytes per stage and part
drops             … per reason                dedup      verdicts of corpus-wide stages
clusters          removed and kept documents  alarms     what lost more than its limit
packs             tokenized documents         training   per-domain losses of training runs
training_steps    per-step totals of training runs
validation        held-out losses of training runs
removed           documents that were taken out of packs
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dataeng.engine.records import TaskRecord
from dataeng.engine.run_removal import run_packs
from dataeng.engine.runner import load_records
from dataeng.errors import ConfigError, DataengError, FormatError
from dataeng.formats.atomic import read_json
from dataeng.formats.pack import folder_of, load_manifest
from dataeng.report.alarms import ALARMS_FILE
from dataeng.report.evidence import CLUSTERS_FILE
from dataeng.report.funnel import stats_tables

if TYPE_CHECKING:
    import duckdb


#: Every table with its columns.
TABLES = """
    SELECT table_name AS "table", string_agg(column_name, ', ' ORDER BY ordinal_position) AS columns
    FROM information_schema.columns GROUP BY ALL ORDER BY ALL
"""


def connect(run_dir: Path) -> duckdb.DuckDBPyConnection:
    """Opens an in-memory DuckDB with a view per table of the run.

    Raises:
      ConfigError: the folder holds no run.
    """
    import duckdb

    if not run_dir.is_dir():
        raise ConfigError(f"there is no run at {run_dir}.")
    try:
        records = load_records(run_dir) if (run_dir / "run.json").exists() else {}
        sources = _views(run_dir, records)
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(
            f"{run_dir / 'run.json'} does not describe a run ({error!r}). Run the pipeline again."
        ) from error
    if not sources:
        unfinished = (run_dir / "run.json").exists()
        found = "no phase of it has finished yet" if unfinished else "neither run.json nor training metrics are there"
        raise ConfigError(f"{run_dir} holds no run: {found}.")
    connection = duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})
    for name, select in sources.items():
        try:
            connection.execute(f"CREATE VIEW {name} AS {select}")
        except duckdb.Error as error:
            first = str(error).splitlines()[0]
            raise FormatError(f"cannot read '{name}' ({first}). Run the pipeline again: it restores files.") from error
    for name, frame in stats_tables(records).items() if records else ():
        connection.register(f"{name}_rows", frame.to_arrow())
        connection.execute(f"CREATE TABLE {name} AS SELECT * FROM {name}_rows")
        connection.unregister(f"{name}_rows")
    # From here on a query can read this folder and nothing else on the machine.
    connection.execute(f"SET allowed_directories = [{_quote(str(run_dir.resolve()) + '/')}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _views(run_dir: Path, records: dict[str, list[TaskRecord]]) -> dict[str, str]:
    run_dir = run_dir.resolve()
    views = _run_views(run_dir, records) if records else {}
    for view, folder in (("training", "metrics"), ("training_steps", "steps"), ("validation", "validation")):
        parts = sorted(run_dir.glob(f"{folder}/part-*.parquet")) + sorted(
            run_dir.glob(f"training/*/{folder}/part-*.parquet")
        )
        by_run: dict[str, list[Path]] = {}
        for part in parts:
            by_run.setdefault(part.parents[1].name, []).append(part)
        selects = [f"SELECT {_quote(run)} AS run, * FROM {read_parquet(found)}" for run, found in by_run.items()]
        if selects:
            views[view] = " UNION ALL BY NAME ".join(selects)
    return views


def _run_views(run_dir: Path, records: dict[str, list[TaskRecord]]) -> dict[str, str]:
    run = read_json(run_dir / "run.json")
    row_phases = [phase["name"] for phase in run["phases"] if phase["kind"] == "rows" and phase["name"] in records]
    views: dict[str, str] = {}
    if row_phases:
        views["documents"] = f"SELECT * FROM {read_parquet(files_of(run_dir, records[row_phases[-1]], 'documents'))}"
        rejects = [path for name in row_phases for path in files_of(run_dir, records[name], "rejects")]
        views["rejects"] = f"SELECT * FROM {read_parquet(rejects)}"
        signals = [files_of(run_dir, records[name], "signals") for name in row_phases]
        views |= _signals_view([paths for paths in signals if paths])
    dedup = [
        f"SELECT {_quote(phase['exchange'])} AS stage, * FROM {read_parquet(paths)}"
        for phase in run["phases"]
        if phase["kind"] in ("reduce", "visit") and phase["name"] in records
        for paths in [_verdicts(run_dir, records[phase["name"]])]
        if paths
    ]
    if dedup:
        # Not every corpus-wide stage names documents, but whoever asks for one expects these columns.
        named = "SELECT NULL::VARCHAR AS id, NULL::VARCHAR AS kept_id WHERE false"
        views["dedup"] = " UNION ALL BY NAME ".join([*dedup, named])
    views |= {
        name: f"SELECT * FROM {read_parquet([run_dir / file])}"
        for name, file in (("clusters", CLUSTERS_FILE), ("alarms", ALARMS_FILE))
        if (run_dir / file).exists()
    }
    docs = [
        run_dir / "packs" / folder_of(shard) / shard["shard"]["files"]["docs"]["name"]
        for name in row_phases[-1:]
        for record in records[name]
        for shards in record.shards.values()
        for shard in shards
        if "docs" in shard.get("shard", {}).get("files", {})
    ]
    if docs:
        views["packs"] = f"SELECT * FROM {read_parquet(docs)}"
    manifests = [(folder, load_manifest(folder)) for folder in run_packs(run_dir)]
    removed = [folder / manifest.removed.name for folder, manifest in manifests if manifest.removed is not None]
    if removed:
        views["removed"] = f"SELECT * FROM {read_parquet(removed)}"
    return views


def files_of(run_dir: Path, records: list[TaskRecord], kind: str) -> list[Path]:
    """Returns the files of a kind that tasks committed."""
    return [run_dir / file.name for record in records for file in record.files if file.kind == kind]


def _verdicts(run_dir: Path, records: list[TaskRecord]) -> list[Path]:
    """Files with verdicts; a partition without any wrote an empty table that lacks the evidence columns."""
    files = [file for record in records for file in record.files if file.kind == "exchange"]
    return [run_dir / file.name for file in files if file.num_rows and file.name.startswith("dedup/")]


def _signals_view(groups: list[list[Path]]) -> dict[str, str]:
    """Later phases add signals to documents that are still there; the first one has a row for every document."""
    if not groups:
        return {}
    select = f"SELECT * FROM {read_parquet(groups[0])}"
    for paths in groups[1:]:
        select = f"SELECT * FROM ({select}) LEFT JOIN {read_parquet(paths)} USING (id)"
    return {"signals": select}


def read_parquet(paths: list[Path]) -> str:
    """Returns, as a table in SQL, the rows of Parquet files."""
    return f"read_parquet([{', '.join(_quote(str(path)) for path in paths)}], union_by_name = true)"


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def query(run_dir: Path, statement: str, max_rows: int | None = None) -> tuple[list[str], list[tuple[object, ...]]]:
    """Runs one SELECT; returns column names and rows, at most ``max_rows``.

    Raises:
      DataengError: the statement is wrong, writes, or reaches for something outside the run folder.
    """
    import duckdb

    with connect(run_dir) as connection:
        try:
            # The folder is open to DuckDB for writing too, and `COPY … TO` could replace a committed shard.
            kinds = [parsed.type for parsed in connection.extract_statements(statement)]
            if kinds != [duckdb.StatementType.SELECT]:
                found = ", ".join(kind.name for kind in kinds) or "nothing"
                raise DataengError(
                    f"SQL: one statement that only reads is run (SELECT, WITH, FROM, DESCRIBE), found {found}."
                )
            result = connection.execute(statement)
            columns = [column[0] for column in result.description or []]
            return columns, result.fetchall() if max_rows is None else result.fetchmany(max_rows)
        except duckdb.CatalogException as error:
            listed = connection.execute("SELECT table_name FROM information_schema.tables ORDER BY ALL").fetchall()
            tables = ", ".join(row[0] for row in listed)
            raise DataengError(f"SQL: {_one_line(error)} The tables of this run: {tables}.") from error
        except duckdb.Error as error:
            raise DataengError(f"SQL: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    """Returns what DuckDB says, without the picture of the statement that it draws below."""
    return " ".join(str(error).split("\n\nLINE ")[0].split("\nDid you mean")[0].split())
