"""The documentation is true: commands run, code works, links lead somewhere, the reference is the code's."""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dataeng.formats.mixture import json_schema, load_mixture
from dataeng.formats.token_count import parse_tokens
from dataeng.report import preset_reference
from dataeng.report.catalogue import markdown, objectives_markdown, signals_markdown
from tests.end_to_end.runs import dataeng, environment
from tests.test_cli import Call, call
from trainer.cli import app as trainer
from trainer.model.presets import PRESETS

__all__ = ["call"]  # a fixture

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BIN = Path(sys.executable).parent
#: Values of the trainer's options in the recipe, and what the test gives instead.
FEWER = {"200k": "5k", "50k": "4k", "5000": "300", "20000": "600"}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder as the repository's root is, in which a run leaves nothing behind in the repository."""
    for name in ("pipelines", "manifests"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


def shell(script: str, folder: Path, timeout: float = 580) -> str:
    """Runs commands with this environment's programs in place of the virtual environment's."""
    script = script.replace(".venv/bin/", f"{BIN}/")
    variables = {**environment(), "PATH": f"{BIN}:{os.environ['PATH']}", "COLUMNS": "160"}
    done = subprocess.run(
        ["bash", "-euc", script], cwd=folder, capture_output=True, text=True, timeout=timeout, env=variables
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def main_job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder as the repository's root is, after the README's first command, and a copy of it.

    A run knows the path of its pipeline: another test finds the folder in its place, made again from the copy.
    """
    folder = tmp_path_factory.mktemp("main_job") / "root"
    for name in ("pipelines", "manifests"):
        shutil.copytree(ROOT / name, folder / name)
    command = blocks(ROOT / "README.md", "sh")[0].splitlines()[-1]
    assert "dataeng run pipelines/cc_clean.yaml" in command
    assert "write_packs" in shell(command, folder)
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    return folder, copy


@pytest.fixture
def after_main_job(main_job: tuple[Path, Path]) -> Path:
    folder, copy = main_job
    shutil.rmtree(folder)
    shutil.copytree(copy, folder)
    return folder


def test_the_commands_of_the_readme_run_one_after_the_other(after_main_job: Path) -> None:
    """As they stand, but for the number of steps: a fifth of them shows what all do."""
    _, tests, *rest = blocks(ROOT / "README.md", "sh")
    assert "pytest" in tests and len(rest) >= 3
    script = "\n".join(rest)
    train = ".venv/bin/trainer --mixture manifests/mix.json\n"
    assert script.count(train) == 1
    printed = shell(script.replace(train, train.replace("\n", " --steps 60\n")), after_main_job)
    assert "run 0" not in printed
    for domain in ("web", "multilingual", "code"):
        assert domain in printed
    # The last command shows every domain's first and last loss.
    table = [line.split()[1:] for line in printed.splitlines()[-3:]]
    assert {row[0] for row in table} == {"web", "multilingual", "code"}
    assert all(float(row[4]) < float(row[2]) - 0.5 for row in table), table
    learned = load_mixture(after_main_job / "runs/cc_clean/training/mix/mix.json")
    assert learned.policy.name == "learned" and len(learned.history) == 1


def test_the_guides_show_commands_that_run(after_main_job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    commands = [
        line.removeprefix("$ ")
        for page in ("getting_started", "quality", "dedup", "mixtures", "packing", "tokenizers")  # all in one folder
        for block in blocks(ROOT / f"docs/{page}.md", "console")
        for line in block.splitlines()
        if line.startswith("$ ") and not line.startswith("$ trainer")  # the README's test trains
    ]
    assert len(commands) >= 13 and all(command.startswith("dataeng ") for command in commands)
    printed = "".join(dataeng(*shlex.split(command)[1:], folder=after_main_job) for command in commands)
    assert "documents judged again" in printed and "agree on" in printed and "BROKEN FIRST" in printed
    assert "8 documents  nearly_same, minhash" in printed


def test_the_dedup_index_page_shows_commands_that_run_and_what_they_print(tmp_path: Path) -> None:
    page = ROOT / "docs/dedup_index.md"
    for block in blocks(page, "yaml"):
        (tmp_path / block.splitlines()[0].removeprefix("# ")).write_text(block)
    lines = [line for block in blocks(page, "console") for line in block.splitlines()]
    commands = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    printed = {line.strip() for line in shell("\n".join(commands), tmp_path).splitlines()}
    shown = [line.strip() for line in lines if not line.startswith("$ ")]
    assert len(commands) == 7 and [line for line in shown if line not in printed] == []


def test_the_page_on_objectives_shows_what_its_example_prints(workplace: Path) -> None:
    page = ROOT / "docs/objectives.md"
    for language in ("python", "yaml"):
        for block in blocks(page, language):
            if name := re.match(r"# ([a-z]+\.(?:py|yaml))", block):
                (workplace / name[1]).write_text(block)
    lines = [line for block in blocks(page, "console") for line in block.splitlines()]
    commands = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    script = "\n".join(commands).replace("python ", ".venv/bin/python ")
    printed = [line.strip() for line in shell(script, workplace).splitlines()]
    shown = [line for line in lines if not line.startswith("$ ")]
    assert len(shown) == 4 and [line for line in shown if line not in printed] == []
    assert any(line.startswith("packs/qa: 37 documents") for line in printed)


def test_the_page_of_packs_shows_commands_that_run_and_what_they_print(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers, and the text around a token, depend on the tokenizer that is trained: they are left out."""
    page = ROOT / "docs/packs.md"
    monkeypatch.chdir(tmp_path)
    (pipeline,) = blocks(page, "yaml")
    Path("manuals.yaml").write_text(pipeline)
    lines = [line for block in blocks(page, "console") for line in block.splitlines()]
    printed = []
    for command in (line.removeprefix("$ ") for line in lines if line.startswith("$ ")):
        if command.startswith("dataeng "):  # in this process: there are many, and each would start with imports
            inline = ["--scheduler", "inline"] if command.startswith("dataeng run") else []
            called = call(*shlex.split(command)[1:], *inline)
            printed += [*called.out.splitlines(), *called.err.splitlines()]
        else:
            shell(command, tmp_path)

    def comparable(line: str) -> str:
        return " ".join(re.sub(r"[0-9][0-9.,]*|─+", "#", line).split())

    everything = "\n".join(comparable(line) for line in printed)
    shown = [comparable(line) for line in lines if not line.startswith(("$ ", "│"))]
    assert len(shown) > 35 and [line for line in shown if line not in everything] == []
    (code,) = blocks(page, "python")
    exec(compile(code, page, "exec"), {})


def test_the_recipe_runs_from_a_budget_to_a_verdict(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command as it stands, but for the budgets of tokens: thousands show what hundreds of thousands do."""
    page = ROOT / "docs/recipes.md"
    monkeypatch.chdir(tmp_path)
    for block in blocks(page, "yaml"):
        Path(re.match(r"# (\w+\.yaml)", block)[1]).write_text(block)  # type: ignore[index]
    monkeypatch.setenv("COLUMNS", "160")
    printed = []
    for line in "".join(blocks(page, "console")).splitlines():
        program, *arguments = shlex.split(line.removeprefix("$ "))
        if program == "dataeng":
            inline = ["--scheduler", "inline"] if arguments[0] == "run" else []
            called = call(*arguments, *inline)
            assert called.code == 0, called.err
            printed.append(called.out)
        else:
            arguments = [FEWER.get(argument, argument) for argument in arguments]
            where = [] if arguments[0] == "export" else ["--device", "cpu"]
            done = CliRunner().invoke(trainer, [*arguments, *where])
            assert done.exit_code == 0, (line, done.output)
            printed.append(done.stdout)
    assert len(printed) == 10
    shown = [row.split() for row in "".join(printed).splitlines()]
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    tables = [block for language, block in fenced if not language]
    assert len(tables) == 2
    for row in (row.split() for table in tables for row in table.splitlines()):
        if row[0] == "domain":
            assert row in shown
        elif row[0] in ("qa", "books"):
            assert any(found[0] == row[0] and len(found) == len(row) for found in shown if found), row
    assert any(row[:1] == ["books"] and row[-1] == "learned" for row in shown)
    assert "stage decay, up to 100%" in printed[1]


def test_the_table_of_the_recipe_follows_from_its_formulas() -> None:
    rows = re.findall(r"^\| `(\w[\w.]*)` \|(.*)\|$", (ROOT / "docs/recipes.md").read_text(), re.MULTILINE)
    assert [name for name, _ in rows] == [name for name in PRESETS if name not in ("tiny", "small")]
    for name, row in rows:
        tokens, length, batch, steps, rate = (cell.strip().replace(",", "") for cell in row.split("|"))
        num_weights = parse_tokens({"3b": "3.2b"}.get(name, name))
        assert parse_tokens(tokens) == pytest.approx(20 * num_weights, rel=0.02)
        assert int(length) == PRESETS[name].sequence_length
        compute = 6 * num_weights * parse_tokens(tokens)
        assert int(batch) * int(length) == pytest.approx(0.2920 * compute**0.3271, rel=0.06)
        assert int(steps) == math.ceil(parse_tokens(tokens) / (int(batch) * int(length)))
        assert float(rate) == pytest.approx(0.3118 * compute**-0.125, rel=0.04)


def test_the_preset_of_the_docs_works(tmp_path: Path) -> None:
    preset, stages = blocks(ROOT / "docs/quality.md", "yaml")
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/docs.yaml").write_text(preset)
    (tmp_path / "in.jsonl").write_text('{"text": "too few words", "language": "en"}\n')
    source = "name: own\nsources:\n  - read_files: {paths: [in.jsonl]}\n"
    signals = "stages:\n  - identify_language: {min_score: 0}\n  - quality_signals: {signals: all}\n"
    (tmp_path / "pipeline.yaml").write_text(source + signals + stages.removeprefix("stages:\n"))
    assert "docs_too_few_words 1" in shell("dataeng run pipeline.yaml --scheduler inline", tmp_path)


def test_the_stage_of_the_docs_works(tmp_path: Path) -> None:
    page = ROOT / "docs/stages.md"
    code = next(block for block in blocks(page, "python") if "class DropShouting" in block)
    own = next(block for block in blocks(page, "yaml") if "shouting:DropShouting" in block)
    (tmp_path / "shouting.py").write_text(code)
    (tmp_path / "in.jsonl").write_text('{"text": "I SHOUT SO MUCH"}\n{"text": "I speak softly."}\n')
    source = "name: own\nsources:\n  - read_files: {paths: [in.jsonl]}\n"
    (tmp_path / "pipeline.yaml").write_text(source + own)
    command = next(block for block in blocks(page, "sh") if "--allow-code" in block)
    printed = shell(command, tmp_path)
    assert "shouting 1" in printed


def test_the_datatrove_block_of_the_docs_works(tmp_path: Path) -> None:
    block = next(block for block in blocks(ROOT / "docs/stages.md", "yaml") if "GopherQualityFilter" in block)
    (tmp_path / "in.jsonl").write_text('{"text": "too short"}\n')
    (tmp_path / "pipeline.yaml").write_text("name: own\nsources:\n  - read_files: {paths: [in.jsonl]}\n" + block)
    assert "gopher_short_doc 1" in shell("dataeng run pipeline.yaml --scheduler inline", tmp_path)


def test_the_schema_of_mixtures_is_the_code_s() -> None:
    assert (ROOT / "docs/mixture.schema.json").read_text() == json_schema(), (
        "run: dataeng mix schema > docs/mixture.schema.json"
    )


def test_the_reference_of_stages_is_the_code_s() -> None:
    text = (ROOT / "docs/stages.md").read_text()
    _, _, reference = text.partition("<!-- generated by: dataeng stages --markdown -->\n\n")
    assert reference == markdown(), "run: dataeng stages --markdown, and put it at the end of docs/stages.md"


def test_the_reference_of_signals_and_presets_is_the_code_s() -> None:
    text = (ROOT / "docs/quality.md").read_text()
    _, _, reference = text.partition("<!-- generated by: dataeng presets --markdown -->\n\n")
    assert reference == preset_reference.markdown(), (
        "run: dataeng presets --markdown, and put it at the end of the page"
    )


def test_the_table_of_signals_is_the_codes() -> None:
    _, _, reference = (ROOT / "docs" / "signals.md").read_text().partition("<!-- generated from the code -->\n\n")
    assert reference == signals_markdown(), (
        "put the output of dataeng.report.catalogue.signals_markdown() at the end of docs/signals.md"
    )


def test_the_options_of_objectives_are_the_codes() -> None:
    _, _, reference = (ROOT / "docs" / "objectives.md").read_text().partition("<!-- generated from the code -->\n\n")
    assert reference == objectives_markdown(), (
        "put the output of dataeng.report.catalogue.objectives_markdown() at the end of docs/objectives.md"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    headings = {
        re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif not target.startswith("http"):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_every_verb_and_every_table_is_in_the_docs() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    from dataeng.cli import app

    for command in app.registered_commands:
        name = command.name or (command.callback.__name__ if command.callback else "")
        assert f"dataeng {name}" in text, name
    tables = (ROOT / "docs/run_folder.md").read_text()
    for view in (
        "documents", "rejects", "signals", "stages", "drops", "dedup", "clusters", "alarms", "packs", "training",
        "training_steps",
    ):  # fmt: skip
        assert f"| `{view}` |" in tables


def test_every_pipeline_in_the_repository_plans() -> None:
    pipelines = sorted((ROOT / "pipelines").glob("*.yaml"))
    assert pipelines
    for pipeline in pipelines:
        assert "tasks would run" in shell(f"dataeng plan {pipeline} --set run=nowhere", ROOT)
