"""Plans: phases and tasks, what decides a fingerprint and what does not, and what cannot be planned."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dataeng import fingerprint as fingerprint_module
from dataeng import plan as plan_module
from dataeng.config import load_pipeline
from dataeng.errors import InputError, PlanError
from dataeng.plan import Plan, make_plan
from dataeng.stages.extract.extract_text import ExtractText
from tests.engine.conftest import PIPELINE, Toy, make_toy, toy

__all__ = ["make_toy", "toy"]  # fixtures

OWN_STAGES = """\
from pathlib import Path

import polars as pl

from dataeng.stage import Columns, ExchangeStage, RowStage, Sink


class Modelled(RowStage):
    models: list[Path] = []

    def model_files(self):
        return tuple(self.models)

    def apply(self, batch):
        return batch


class NeedsTokenizer(RowStage):
    def needs_artifacts(self):
        return ("tokenizer",)

    def apply(self, batch):
        return batch


class Strange(RowStage):
    column: str = "reason"
    kind: str = "string"

    def columns(self):
        return Columns(adds={self.column: pl.String() if self.kind == "string" else pl.Int64()})

    def apply(self, batch):
        return batch


class ForgetsText(RowStage):
    def columns(self):
        return Columns(removes=("text",))

    def apply(self, batch):
        return batch.drop("text")
"""


def fingerprints(plan: Plan) -> dict[str, list[str]]:
    return {name: [task.fingerprint for task in tasks] for name, tasks in plan.tasks.items()}


def changed(before: Plan, after: Plan) -> list[str]:
    """Returns the names of the phases of which any task has another fingerprint."""
    old, new = fingerprints(before), fingerprints(after)
    assert old.keys() == new.keys()
    return [name for name in new if old[name] != new[name]]


def extended(toy: Toy, entry: str) -> Plan:
    """Plans the toy pipeline with one more stage, from own.py, before the sink."""
    (toy.folder / "own.py").write_text(OWN_STAGES)
    sys.modules.pop("own", None)
    toy.file.write_text(PIPELINE.replace("  - toy:Collect:\n", f"{entry}  - toy:Collect:\n"))
    return toy.plan()


def test_golden_plan_of_the_toy_pipeline(toy: Toy) -> None:
    plan = toy.plan()
    rows = [(p.name, p.kind, [step.name for step in p.steps], len(plan.tasks[p.name])) for p in plan.phases]
    assert rows == [
        ("read", "rows", ["lines", "drop", "measure", "fragile"], 3),
        ("dedup.spread", "reduce", [], 3),
        ("dedup.judge", "reduce", [], 3),
        ("dedup.apply", "rows", ["upper"], 3),
    ]
    read, spread, judge, apply = plan.phases
    assert read.emits_to is not None and read.emits_to.name == "dedup" and read.reads_documents_of is None
    assert (spread.exchange_phase, judge.exchange_phase, apply.exchange_phase) == (
        "read",
        "dedup.spread",
        "dedup.judge",
    )
    assert (spread.exchange_step, judge.exchange_step, apply.reads_documents_of) == (0, 1, "read")
    assert [step.name for step in apply.sinks] == ["collect"] and apply.applies is not None
    assert list(read.schema) == [
        "id", "url", "host", "source", "source_offset", "date", "domain", "text", "toy_length"
    ]  # fmt: skip
    assert list(read.signals) == ["toy_length"] and not apply.signals
    assert [task.file.name for task in plan.tasks["read"] if task.file] == ["0.txt", "1.txt", "2.txt"]
    assert plan.final_documents is apply
    everything = [fingerprint for group in fingerprints(plan).values() for fingerprint in group]
    assert len(set(everything)) == 12 and all(len(f) == 32 for f in everything)


def test_a_pipeline_without_stages_reads_and_stops(toy: Toy) -> None:
    toy.file.write_text("sources:\n  - toy:Lines:\n")
    assert [(phase.name, phase.kind) for phase in toy.plan().phases] == [("read", "rows")]


def test_an_exchange_first_and_two_in_a_row(toy: Toy) -> None:
    stages = "  - toy:KeepFirst: {partitions: 2}\n  - toy:KeepFirst: {partitions: 5}\n"
    toy.file.write_text("sources:\n  - toy:Lines:\nstages:\n" + stages)
    assert [(p.name, len(toy.plan().tasks[p.name])) for p in toy.plan().phases] == [
        ("read", 3),
        ("keepfirst.spread", 2), ("keepfirst.judge", 2), ("keepfirst.apply", 3),
        ("keepfirst_2.spread", 5), ("keepfirst_2.judge", 5), ("keepfirst_2.apply", 3),
    ]  # fmt: skip


PRINT_FINGERPRINTS = """
import json, sys
from pathlib import Path
from dataeng.config import load_pipeline
from dataeng.plan import make_plan
plan = make_plan(load_pipeline(Path(sys.argv[1]), [], allow_code=True))
print(json.dumps({name: [task.fingerprint for task in tasks] for name, tasks in plan.tasks.items()}))
"""


def test_fingerprints_are_the_same_in_every_process_folder_and_working_directory(
    toy: Toy, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import json

    here = fingerprints(toy.plan())
    elsewhere = tmp_path_factory.mktemp("moved") / "deep" / "er"
    shutil.copytree(toy.folder, elsewhere, copy_function=shutil.copy2)  # keeps modification times
    for seed, file, folder in (("1", toy.file, "/"), ("2", elsewhere / "toy.yaml", elsewhere)):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": "C"}
        command = [sys.executable, "-c", PRINT_FINGERPRINTS, str(file)]
        root = Path(plan_module.__file__).parents[1]
        environment["PYTHONPATH"] = str(root)
        found = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
        assert json.loads(found.stdout) == here


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: "# a comment\n" + text,
        lambda text: "description: something else\n" + text,
        lambda text: text.replace("name: toy\n", "name: another\n"),
        lambda text: text + "run: elsewhere\n",
        lambda text: text + "max_error_share: 0.5\n",
        lambda text: text.replace("{word: bad}", "{word: 'bad', reason_name: contains_word}"),  # the default, spelt out
        lambda text: text.replace("- toy:Upper:", "- toy:Upper"),
    ],
)
def test_what_does_not_decide_the_output_does_not_change_a_fingerprint(toy: Toy, edit: Callable[[str], str]) -> None:
    before = toy.plan()
    text = edit(PIPELINE)
    assert text != PIPELINE
    toy.file.write_text(text)
    plan = make_plan(load_pipeline(toy.file, allow_code=True))
    assert changed(before, plan) == []


ALL = ["read", "dedup.spread", "dedup.judge", "dedup.apply"]


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (("{word: bad}", "{word: good}"), ALL),
        (("    name: drop\n", "    name: drop\n    where: domain == 'web'\n"), ALL),
        (("  - toy:Measure:\n  - toy:Fragile:\n", "  - toy:Fragile:\n  - toy:Measure:\n"), ALL),
        (("  - toy:Measure:\n", ""), ALL),
        (("    name: dedup\n", "    name: dedup\n    # a comment\n"), []),
        (("  - toy:Upper:\n", ""), ["dedup.apply"]),
        (("  - toy:Upper:\n", "  - toy:Upper:\n    where: toy_length > 3\n"), ["dedup.apply"]),
        (("  - toy:Collect:\n", ""), ["dedup.apply"]),
        (("name: toy\n", "name: toy\nkeep_rejected_text: false\n"), ALL),
        (("  - toy:Lines:\n", "  - toy:Lines: {domain: books}\n"), ALL),
    ],
)
def test_a_change_reaches_what_depends_on_it_and_nothing_else(
    toy: Toy, edit: tuple[str, str], expected: list[str]
) -> None:
    before = toy.plan()
    assert edit[0] in PIPELINE
    toy.file.write_text(PIPELINE.replace(*edit))
    assert changed(before, toy.plan()) == expected


def test_a_changed_input_file_changes_its_own_first_task_and_everything_reduced_from_it(toy: Toy) -> None:
    before = toy.plan()
    toy.write_input("1.txt", ["other"])
    after = toy.plan()
    old, new = fingerprints(before), fingerprints(after)
    assert [a == b for a, b in zip(old["read"], new["read"], strict=True)] == [True, False, True]
    assert changed(before, after) == ALL
    assert not set(old["dedup.apply"]) & set(new["dedup.apply"])  # verdicts come from all parts


def test_own_code_is_fingerprinted_by_its_source(toy: Toy) -> None:
    before = toy.plan()
    code = toy.folder / "toy.py"
    code.write_text(code.read_text() + "\n# edited\n")
    assert changed(before, toy.plan()) == ALL


def registered(folder: Path) -> Plan:
    (folder / "crawl").mkdir(exist_ok=True)
    for name in ("a.warc.gz", "b.warc.gz"):
        (folder / "crawl" / name).write_bytes(b"never opened by the planner")
        os.utime(folder / "crawl" / name, (1_700_000_000, 1_700_000_000))
    (folder / "p.yaml").write_text(
        "sources:\n  - read_warc: {paths: ['crawl/*.warc.gz']}\nstages:\n  - extract_text\n  - deduplicate_exact\n"
    )
    return make_plan(load_pipeline(folder / "p.yaml"))


def test_a_stage_s_version_and_its_libraries_versions_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = registered(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(ExtractText, "version", ExtractText.version + 1)
        assert changed(before, registered(tmp_path)) == [phase.name for phase in before.phases]
    assert ExtractText.libraries, "the test needs a stage that names a library"
    original = importlib.metadata.version
    with monkeypatch.context() as patch:
        patch.setattr(
            importlib.metadata, "version", lambda name: "0.0" if name in ExtractText.libraries else original(name)
        )
        fingerprint_module._library_version.cache_clear()
        assert changed(before, registered(tmp_path)) == [phase.name for phase in before.phases]
    fingerprint_module._library_version.cache_clear()
    assert changed(before, registered(tmp_path)) == []


def test_a_model_file_counts_by_content_even_if_two_have_the_same_name(toy: Toy) -> None:
    models = [toy.folder / sub / "model.bin" for sub in ("a", "b")]
    for model in models:
        model.parent.mkdir()
        model.write_bytes(b"one")
    entry = f"  - own:Modelled: {{models: ['{models[0]}', '{models[1]}']}}\n"
    before = extended(toy, entry)
    os.utime(models[0], (1, 1))
    assert changed(before, extended(toy, entry)) == []
    for model in models:
        model.write_bytes(b"two")
        assert changed(before, extended(toy, entry)) == ["dedup.apply"]
        model.write_bytes(b"one")
    models[1].unlink()
    with pytest.raises(InputError, match=r"'modelled' cannot read .*b/model\.bin: No such file"):
        extended(toy, entry)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (
            "  - own:NeedsTokenizer:\n",
            "'needstokenizer' needs the artifact 'tokenizer', which no stage before it makes",
        ),
        ("  - own:Strange:\n", "'strange' adds the column 'reason', which the engine keeps for itself"),
        (
            "  - own:Strange: {column: text, kind: int}\n",
            "'strange' adds 'text' as Int64; it is already there as String",
        ),
        ("  - own:ForgetsText:\n  - toy:Upper:\n", "'upper_2' reads the column 'text', which is not there"),
        ("  - toy:Upper:\n    where: toy_lenght > 6\n", "'toy_lenght', which is not there; did you mean 'toy_length'?"),
        (
            "  - toy:Upper:\n    where: toy_length\n",
            "'upper_2': predicate 'toy_length' is Int64; expected a comparison",
        ),
        ("  - toy:Upper:\n    where: text > 5\n", "'upper_2': predicate 'text > 5' does not fit its columns"),
        ("  - toy:Upper:\n    where: 1 < 2\n", "'upper_2': predicate '1 < 2' names no column"),
        ("  - toy:Upper:\n    where: ''\n", "'upper_2': predicate '' is not an expression"),
        ("  - toy:Upper:\n    where: text.foo\n", "'upper_2': predicate 'text.foo', at 'text.foo'"),
        (
            "  - toy:Collect:\n    name: first\n  - toy:Upper:\n",
            "'upper_2' comes after the sink 'first'; sinks end a pipeline",
        ),
    ],
)
def test_what_cannot_run_is_refused_before_anything_runs(toy: Toy, entry: str, expected: str) -> None:
    with pytest.raises(PlanError) as caught:
        extended(toy, entry)
    assert expected in str(caught.value)
    assert not toy.run_dir.exists()


def test_two_sinks_end_a_pipeline_together(toy: Toy) -> None:
    plan = extended(toy, "  - toy:CollectElsewhere:\n    name: first\n")
    assert [step.name for step in plan.phases[-1].sinks] == ["first", "collect"]


def test_what_would_write_the_same_files_twice_is_refused(toy: Toy) -> None:
    with pytest.raises(PlanError, match="'first' and 'collect' would write the same files"):
        extended(toy, "  - toy:Collect:\n    name: first\n")
    with pytest.raises(PlanError, match="'second' would make the artifact 'tokenizer' a second time"):
        extended(toy, "  - train_tokenizer:\n  - train_tokenizer:\n    name: second\n")


def test_no_input_and_input_with_an_impossible_name(toy: Toy) -> None:
    with pytest.raises(InputError, match="lines found no input files"):
        toy.plan("lines.folder=nowhere")
    (toy.folder / "input" / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    with pytest.raises(InputError, match=r"caf\\udce9\.txt' is not UTF-8; rename the file"):
        toy.plan()
