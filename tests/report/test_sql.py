"""SQL over a run: the tables add up, and a query reaches the run folder's tables and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from dataeng.errors import ConfigError, DataengError, FormatError
from dataeng.formats.pack import load_manifest
from dataeng.report.sql import query
from tests.small_run import SmallRun


def ask(small: SmallRun, statement: str) -> list[tuple[object, ...]]:
    return query(small.run_dir, statement)[1]


def one(small: SmallRun, statement: str) -> object:
    return ask(small, statement)[0][0]


VIEWS = ["alarms", "clusters", "dedup", "documents", "drops", "packs", "rejects", "signals", "stages"]


def test_every_view_is_there(finished: SmallRun) -> None:
    tables = ask(finished, "SELECT table_name FROM information_schema.tables ORDER BY ALL")
    assert [row[0] for row in tables] == VIEWS


def test_documents_in_are_documents_kept_and_dropped(finished: SmallRun) -> None:
    assert one(finished, "SELECT count(*) FROM documents") == 5
    assert one(finished, "SELECT count(*) FROM rejects") == 6
    assert one(finished, "SELECT sum(documents_in) FROM stages WHERE stage IN ('web', 'code')") == 11
    assert one(finished, "SELECT sum(documents) FROM drops") == 6
    by_reason = "SELECT stage, reason, count(*), sum(num_bytes) FROM rejects GROUP BY ALL ORDER BY ALL"
    by_ledger = "SELECT stage, reason, sum(documents), sum(bytes) FROM drops GROUP BY ALL ORDER BY ALL"
    assert ask(finished, by_reason) == ask(finished, by_ledger)
    unbalanced = (
        "SELECT s.stage, s.part FROM stages s LEFT JOIN (SELECT position, part, sum(documents) AS dropped FROM drops "
        "GROUP BY ALL) d USING (position, part) WHERE documents_in != documents_kept + coalesce(dropped, 0)"
    )
    assert ask(finished, unbalanced) == []


def test_drops_name_stage_reason_and_part(finished: SmallRun) -> None:
    assert ask(finished, "SELECT stage, reason, part, documents FROM drops ORDER BY position, part") == [
        ("code", "error:no_text", 2, 1),
        ("rule", "spam", 0, 1),
        ("rule", "spam", 1, 1),
        ("same", "exact_duplicate", 0, 1),
        ("same", "exact_duplicate", 1, 1),
        ("near", "near_duplicate", 1, 1),
    ]


def test_dedup_signals_and_packs_fit_the_documents(finished: SmallRun) -> None:
    pairs = "SELECT d.stage, r.url, k.url, cluster_size FROM dedup d JOIN rejects r USING (id) "
    assert ask(finished, pairs + "JOIN documents k ON k.id = d.kept_id ORDER BY ALL") == [
        ("near", "https://b.example/near", "https://a.example/garden", 2),
        ("same", "https://a.example/copy", "https://a.example/garden", 3),
        ("same", "https://b.example/copy", "https://a.example/garden", 3),
    ]
    # The line without a text was never measured, and is listed all the same.
    assert one(finished, "SELECT count(*) FROM signals") == 11
    assert one(finished, "SELECT count(*) FROM signals WHERE toy_length IS NULL") == 1
    assert ask(finished, "SELECT id FROM packs ORDER BY id") == ask(finished, "SELECT id FROM documents ORDER BY id")
    for domain, tokens in ask(finished, "SELECT domain, sum(num_tokens) FROM packs GROUP BY ALL"):
        assert load_manifest(finished.run_dir / "packs" / str(domain)).num_tokens == tokens


def test_training_metrics_are_tables_too(tmp_path: Path) -> None:
    for view, folder in (("training", "metrics"), ("training_steps", "steps"), ("validation", "validation")):
        path = tmp_path / "training" / "first" / folder
        path.mkdir(parents=True)
        pl.DataFrame({"step": [1, 2], "table": [view] * 2}).write_parquet(path / "part-00000.parquet")
    assert query(tmp_path, 'SELECT count(*), any_value("table") FROM training')[1] == [(2, "training")]
    assert query(tmp_path, 'SELECT count(*), any_value("table") FROM training_steps')[1] == [(2, "training_steps")]
    assert query(tmp_path, "SELECT run, step FROM validation")[1] == [("first", 1), ("first", 2)]


def test_most_rows(finished: SmallRun) -> None:
    assert len(query(finished.run_dir, "SELECT * FROM rejects", max_rows=2)[1]) == 2


@pytest.mark.parametrize("statement", ["FROM drops", "WITH a AS (SELECT 1 AS x) SELECT x FROM a", "DESCRIBE documents"])
def test_what_only_reads_is_run(finished: SmallRun, statement: str) -> None:
    assert ask(finished, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd.csv'",
        "SELECT * FROM read_blob('{run}/../../small.yaml')",
        "SELECT * FROM read_text('{run}-other/secret')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM read_parquet('https://example.com/x.parquet')",
    ],
)
def test_nothing_outside_the_run_folder_can_be_read(finished: SmallRun, statement: str) -> None:
    other = finished.run_dir.with_name(finished.run_dir.name + "-other")
    other.mkdir(exist_ok=True)
    (other / "secret").write_text("secret")
    with pytest.raises(DataengError, match=r"^SQL: Permission Error: Cannot access file") as caught:
        ask(finished, statement.format(run=finished.run_dir))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "statement",
    [
        "COPY (SELECT 1) TO '{run}/new.csv'",
        "COPY (SELECT 1 AS a) TO '{run}/documents/read/00000.parquet'",
        "COPY (SELECT 1) TO '/tmp/new.csv'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{run}/new.csv'",
        "COPY (PIVOT (SELECT 1 AS a) ON a) TO '{run}/new.csv'",
        "ATTACH '{run}/new.db'",
        "ATTACH '/tmp/new.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "EXPORT DATABASE '{run}/new'",
        "SET enable_external_access = true",
        "PRAGMA enable_external_access",
        "CREATE TABLE x AS SELECT 1",
        "DROP VIEW documents",
        "SELECT 1; SELECT 2",
        "",
        "-- nothing",
    ],
)
def test_only_one_statement_that_reads_is_run(finished: SmallRun, statement: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.run_dir.rglob("*")}
    with pytest.raises(DataengError, match=r"^SQL: one statement that only reads is run .* found [A-Z, a-z]+\.$"):
        ask(finished, statement.format(run=finished.run_dir))
    assert {path: path.stat().st_mtime_ns for path in finished.run_dir.rglob("*")} == before


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("SELCT 1", 'SQL: Parser Error: syntax error at or near "SELCT"'),
        ("SELECT nothing FROM documents", 'Referenced column "nothing" not found'),
        ("SELECT * FROM document", f"The tables of this run: {', '.join(VIEWS)}."),
        ("SELECT getenv('HOME')", "Function with name getenv does not exist!"),
        ("SELECT 'a'::INT", "Could not convert string 'a' to INT32"),
    ],
)
def test_a_wrong_statement_is_one_line(finished: SmallRun, statement: str, message: str) -> None:
    with pytest.raises(DataengError) as caught:
        ask(finished, statement)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_folders_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no run at .*nowhere"):
        query(tmp_path / "nowhere", "SELECT 1")
    with pytest.raises(ConfigError, match=r"holds no run: neither run\.json nor training metrics"):
        query(tmp_path, "SELECT 1")
    for content in ("{}", "[]", "{", '{"phases": [{}]}'):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(FormatError, match=r"run\.json does not describe a run"):
            query(tmp_path, "SELECT 1")
    (tmp_path / "run.json").write_text('{"phases": [{"name": "read", "kind": "rows", "fingerprints": ["x"]}]}')
    with pytest.raises(ConfigError, match="no phase of it has finished yet"):
        query(tmp_path, "SELECT 1")


def test_quotes_in_the_path(tmp_path: Path, finished: SmallRun) -> None:
    import shutil

    folder = tmp_path / 'it\'s a "run"'
    shutil.copytree(finished.run_dir, folder)
    assert query(folder, "SELECT count(*) FROM documents")[1] == [(5,)]


def test_a_missing_shard_is_named_with_the_way_out(own: SmallRun) -> None:
    (own.run_dir / "documents/train_tokenizer.apply/00000.parquet").unlink()
    with pytest.raises(FormatError, match=r"cannot read 'documents' \(.*00000\.parquet.*Run the pipeline again"):
        ask(own, "SELECT 1")


def test_an_interrupted_run_answers_for_the_phases_that_are_complete(own: SmallRun) -> None:
    """As after a kill in the middle of the phase that applies near-duplicate verdicts."""
    (own.run_dir / "phases/near.apply/phase.json").unlink()
    (own.run_dir / "phases/train_tokenizer.apply/phase.json").unlink()
    (own.run_dir / "stats/stages.parquet").unlink()
    run = json.loads((own.run_dir / "run.json").read_text())
    (own.run_dir / "run.json").write_text(json.dumps({**run, "status": "running"}))
    assert one(own, "SELECT count(*) FROM documents") == 6
    assert ask(own, "SELECT DISTINCT reason FROM rejects ORDER BY ALL") == [
        ("error:no_text",),
        ("exact_duplicate",),
        ("spam",),
    ]
    assert one(own, "SELECT sum(documents) FROM drops") == 5
    tables = {row[0] for row in ask(own, "SELECT table_name FROM information_schema.tables")}
    assert "packs" not in tables and {"stages", "dedup"} <= tables


def test_phases_of_an_earlier_configuration_do_not_speak_for_the_run(own: SmallRun) -> None:
    """A run that was changed and then failed early: what later phases hold belongs to the run before."""
    from dataeng.errors import TaskError

    own.file.write_text(own.file.read_text().replace("casino, reason", "garden, reason"))
    text = own.file.read_text().replace(
        "  - deduplicate_exact: {partitions: 2}", "  - toy:LosesRows:\n  - deduplicate_exact:"
    )
    own.file.write_text(text)
    (own.folder / "web/0.jsonl").write_text('{"text": "a bad one"}\n{"text": "a good one"}\n')
    with pytest.raises(TaskError):
        own.run()
    with pytest.raises(ConfigError, match="no phase of it has finished yet"):
        ask(own, "SELECT count(*) FROM documents")
