"""The command line as a stranger meets it: what it prints, how it fails, and how fast it starts."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dataeng.cli import main
from dataeng.formats.mixture import load_mixture
from dataeng.stages import STAGES
from tests.rules_run import RulesRun
from tests.small_run import HOSTILE_URL, SmallRun


class Called:
    """What a command left behind."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Called]]:
    before = list(sys.path)

    def run(*arguments: object) -> Called:
        monkeypatch.setattr(sys, "argv", ["dataeng", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Called(code, captured.out, captured.err)

    yield run
    sys.path[:] = before
    sys.modules.pop("toy", None)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallRun]:
    """A complete run; leave it as it is."""
    before = list(sys.path)
    made = SmallRun(tmp_path_factory.mktemp("cli"))
    made.run()
    yield made
    sys.path[:] = before
    sys.modules.pop("toy", None)


Call = Callable[..., Called]


def options(small: SmallRun) -> list[str]:
    return [str(small.file), "--allow-code", "--set", f"run={small.run_dir}", "--scheduler", "inline"]


# --- run and plan


def test_plan_run_run_again(call: Call, tmp_path: Path) -> None:
    small = SmallRun(tmp_path)
    plan = [*options(small)[:4]]
    before = call("plan", *plan)
    assert before.code == 0 and before.err == ""
    assert before.out.startswith("small: 3 input files, ")
    assert "28 tasks would run, 0 would be reused." in before.out and not small.run_dir.exists()
    run = call("run", *options(small))
    assert run.code == 0 and run.err == ""
    assert "28 tasks run, 0 reused" in run.out
    for station in ("web", "code", "measure", "rule", "same", "near", "write_packs"):
        assert any(line.startswith(station + " ") for line in run.out.splitlines()), station
    assert "packs/code: 2 documents" in run.out and "packs/web: 3 documents" in run.out
    assert f"Next: dataeng sql {small.run_dir} " in run.out
    again = call("run", *options(small))
    assert again.code == 0 and again.out == f"nothing to do: {small.run_dir} is complete (28 tasks reused).\n"
    after = call("plan", *plan)
    assert "0 tasks would run, 28 would be reused." in after.out and "run 3" not in after.out


def test_set_changes_an_option_and_reruns_what_depends_on_it(call: Call, tmp_path: Path) -> None:
    small = SmallRun(tmp_path)
    assert call("run", *options(small)).code == 0
    changed = call("plan", *options(small)[:4], "--set", "train_tokenizer.vocab_size=280")
    assert "config: train_tokenizer.vocab_size 300 → 280" in changed.out
    assert "4 tasks would run, 24 would be reused." in changed.out  # the same sample
    rerun = call("run", *options(small), "--set", "rule.word=Quite", "--workers", "1")
    assert (
        rerun.code == 0 and "spam 1" in rerun.out and "read runs again: config: rule.word casino → Quite" in rerun.out
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scheduler", "proceses"], "error: unknown scheduler 'proceses'; expected inline, processes, dask"),
        (["--set", "near.band=3"], "'deduplicate_minhash' has no option 'band'; did you mean 'bands'?"),
        (["--set", "naer.bands=3"], "error: --set naer.bands=3: the pipeline has no step 'naer'; did you mean 'near'?"),
        (["--set", "near.bands=many"], "near.bands"),
        (["--set", "nonsense"], "error: --set nonsense: "),
        (["--set", "sed=3"], "error: --set sed=3: no key 'sed'; did you mean 'seed'?"),
    ],
)
def test_wrong_options_of_run(call: Call, small: SmallRun, arguments: list[str], message: str) -> None:
    called = call("run", *options(small), *arguments)
    assert called.code == 1 and called.out == ""
    assert called.err.startswith("error: ") and called.err.count("\n") == 1
    assert message.replace("near.bands", "bands") in called.err


def test_own_code_needs_consent(call: Call, small: SmallRun) -> None:
    called = call("run", small.file)
    assert called.code == 1 and called.err.startswith(f"error: {small.file}:8:5: 'toy:Measure' is code outside dataeng")
    assert "--allow-code" in called.err


@pytest.mark.parametrize(("content", "message"), [(None, "No such file"), ("a: [", ":1:"), ("x: 1", "unknown key 'x'")])
def test_wrong_pipeline_files(call: Call, tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "p.yaml"
    if content is not None:
        file.write_text(content)
    for command in ("run", "plan"):
        called = call(command, file)
        assert (
            called.code == 1 and called.err.startswith("error: ") and message in called.err and str(file) in called.err
        )


def test_tasks_that_fail_are_named_and_the_rest_is_kept(call: Call, tmp_path: Path) -> None:
    small = SmallRun(tmp_path)
    small.file.write_text(small.file.read_text().replace("toy:Measure", "toy:LosesRows"))
    (small.folder / "web/1.jsonl").write_text('{"text": "a bad one"}\n')
    called = call("run", *options(small))
    assert called.code == 1
    assert "error: 1 of 3 tasks failed; the others were finished and will be reused." in called.err
    assert "web/1.jsonl: 'measure' changed the number or order of rows" in called.err


def test_a_tokenizer_file_that_is_missing_or_damaged_stops_the_run(call: Call, tmp_path: Path) -> None:
    small = SmallRun(tmp_path)
    path = tmp_path / "my.json"
    text = small.file.read_text().replace("  - train_tokenizer: {vocab_size: 300}\n", "")
    small.file.write_text(text.replace("- write_packs:", f"- write_packs: {{tokenizer: {path}}}"))
    missing = call("run", *options(small))
    assert missing.code == 1 and missing.err == f"error: 'write_packs' cannot read {path}: No such file or directory.\n"
    path.write_text('{"version": "1.0"')
    damaged = call("run", *options(small))
    assert damaged.code == 1 and f"{path} is not a tokenizer.json" in damaged.err


def test_a_run_folder_that_cannot_be_made_is_one_line(call: Call, tmp_path: Path) -> None:
    small = SmallRun(tmp_path)
    small.run_dir = tmp_path / "file"
    small.run_dir.write_text("not a folder")
    called = call("run", *options(small))
    assert called.code == 1 and called.err.startswith("error: ") and str(small.run_dir) in called.err
    assert called.err.count("\n") == 1


def test_ctrl_c_says_that_what_was_finished_is_kept(tmp_path: Path) -> None:
    small = SmallRun(tmp_path)
    small.file.write_text(small.file.read_text().replace("toy:Measure", "toy:Fragile"))
    (small.folder / "web/1.jsonl").write_text('{"text": "sleep"}\n' * 500)
    command = [sys.executable, "-m", "dataeng", "run", *options(small)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    first = small.run_dir / "phases/read/task-00000.json"
    while not first.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "stopped. What was finished is kept: run the same command again to go on.\n"
    assert first.exists()


# --- sql and explain


def test_sql_lists_tables_and_answers(call: Call, small: SmallRun) -> None:
    listed = call("sql", small.run_dir)
    assert listed.code == 0
    lines, hint = listed.out.split("\n\n")
    assert hint == f'Every column of a table with its type: dataeng sql {small.run_dir} "DESCRIBE documents"\n'
    names = [line.split()[0] for line in lines.splitlines()]
    assert names == [
        "table",
        "alarms",
        "clusters",
        "dedup",
        "documents",
        "drops",
        "packs",
        "rejects",
        "signals",
        "stages",
    ]
    answer = call("sql", small.run_dir, "SELECT reason, sum(documents) AS n FROM drops GROUP BY ALL ORDER BY ALL")
    assert [line.split() for line in answer.out.splitlines()][:2] == [["reason", "n"], ["error:no_text", "1"]]


def test_sql_as_json_and_csv(call: Call, small: SmallRun) -> None:
    statement = (
        "SELECT url, text, toy_length, 1.5 AS f, [1, 2] AS l, DATE '2024-02-01' AS d FROM documents JOIN signals "
    )
    statement += "USING (id, toy_length) ORDER BY source, source_offset"
    answer = call("sql", small.run_dir, statement, "--format", "json")
    rows = [json.loads(line) for line in answer.out.splitlines()]
    assert len(rows) == 5 and {"url", "text", "toy_length", "f", "l", "d"} == set(rows[0])
    hostile = next(row for row in rows if row["url"] == HOSTILE_URL)
    assert "\x1b]0;owned" in hostile["text"] and hostile["f"] == 1.5 and hostile["l"] == [1, 2]
    assert hostile["d"] == "2024-02-01" and "\x1b" not in answer.out
    table = list(csv.reader(io.StringIO(call("sql", small.run_dir, statement, "--format", "csv").out)))
    assert table[0] == ["url", "text", "toy_length", "f", "l", "d"]
    assert [row[1] for row in table[1:]] == [row["text"] for row in rows]


def test_sql_in_files_has_every_row(call: Call, small: SmallRun) -> None:
    statement = "SELECT a.id FROM documents a, documents b, documents c, rejects d"
    assert len(call("sql", small.run_dir, statement, "--format", "csv").out.splitlines()) == 1 + 5 * 5 * 5 * 6
    assert "the first 200 rows" in call("sql", small.run_dir, statement).out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["SELCT 1"], 'SQL: Parser Error: syntax error at or near "SELCT"'),
        (["SELECT * FROM read_text('/etc/passwd')"], "SQL: Permission Error"),
        (["SELECT 1", "--format", "jsn"], "unknown format 'jsn'; did you mean 'json'?"),
    ],
)
def test_sql_errors_are_one_line(call: Call, small: SmallRun, arguments: list[str], message: str) -> None:
    called = call("sql", small.run_dir, *arguments)
    assert called.code == 1 and called.out == "" and called.err.startswith("error: ") and message in called.err
    assert called.err.count("\n") == 1


def test_explain(call: Call, small: SmallRun) -> None:
    kept = call("explain", small.run_dir, "https://a.example/garden")
    assert kept.code == 0 and kept.out.startswith("kept\n") and "3 duplicates were dropped in its favour" in kept.out
    dropped = call("explain", small.run_dir, "https://b.example/near")
    assert dropped.out.startswith("dropped by near: near_duplicate (near-duplicate of ")
    hostile = call("explain", small.run_dir, HOSTILE_URL)
    assert "[bold red]this[/bold red] \\x1b]0;owned" in hostile.out and "\x1b" not in hostile.out


def test_explain_errors_do_not_command_the_terminal(call: Call, small: SmallRun) -> None:
    called = call("explain", small.run_dir, "https://no.example/\x1b[2J")
    assert called.code == 1 and "no document 'https://no.example/\\x1b[2J'" in called.err and "\x1b" not in called.err
    assert "matches 2 documents" in call("explain", small.run_dir, "https://a.example/casino").err
    assert "there is no run at" in call("explain", small.folder / "nowhere", "x").err


# --- mix


def test_mix_writes_a_manifest_and_prints_it(call: Call, small: SmallRun, tmp_path: Path) -> None:
    path = tmp_path / "manifests" / "mix.json"
    called = call("mix", small.run_dir, "-o", path, "--temperature", "2", "--tokens", "300")
    assert called.code == 0 and called.err == ""
    lines = called.out.splitlines()
    assert lines[0].split()[:4] == ["domain", "documents", "tokens", "weight"]
    manifest = load_mixture(path)
    assert [line.split()[0] for line in lines[1:3]] == ["code", "web"] == list(manifest.domains)
    assert "policy temperature 2; table for 300 training tokens." in lines and lines[-1] == f"Wrote {path}."
    tokens = {name: domain.num_tokens for name, domain in manifest.domains.items()}
    ratio = manifest.domains["web"].weight / manifest.domains["code"].weight
    assert ratio == pytest.approx((tokens["web"] / tokens["code"]) ** 0.5)
    for name, line in zip(("code", "web"), lines[1:3], strict=True):
        assert float(line.split()[-1]) == pytest.approx(manifest.domains[name].weight * 300 / tokens[name], abs=0.006)
    assert "warning" not in called.out


def test_mix_warns_beyond_four_epochs(call: Call, small: SmallRun, tmp_path: Path) -> None:
    arguments = ["mix", small.run_dir, "-o", tmp_path / "mix.json", "--weight", "code=0.9", "--weight", "web=0.1"]
    called = call(*arguments, "--tokens", "1k")
    assert called.code == 0 and "warning: 'code' would be repeated" in called.out and "'web'" not in called.out
    capped = call(*arguments, "--tokens", "300", "--max-epochs", "2")
    assert capped.code == 0 and " 2.00" in capped.out and "warning" not in capped.out
    assert load_mixture(tmp_path / "mix.json").domains["code"].max_epochs == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperature", "0"], "--temperature 0: expected a number above 0"),
        (["--temperature", "2", "--weight", "web=1"], "--temperature and --weight exclude each other"),
        (["--weight", "web=1"], "no weight is given for domain 'code'"),
        (
            ["--weight", "wbe=0.5", "--weight", "code=0.5"],
            "'wbe', which is no domain of the packs; did you mean 'web'?",
        ),
        (["--weight", "web=0.5", "--weight", "code=0.1"], "the given weights sum to 0.6, expected 1"),
        (["--weight", "web"], "--weight web: expected DOMAIN=NUMBER"),
        (["--tokens", "many"], "--tokens many: expected a number such as"),
        (["--tokens", "0"], "the token budget is 0; expected a number above 0"),
        (["--max-epochs", "0"], "expected a number above 0, or none"),
        (["--max-epochs", "0.1"], "the epoch caps allow"),
        (["{run}/packs/web"], "is given twice"),
        (["--max-epochs", "wep=2"], "an epoch cap is given for 'wep', which is no domain; did you mean 'web'?"),
        (["--order", "web=quality"], "cannot be ordered by 'quality'"),
        (["--order", "web=url"], "expected numbers"),
        (["--fixed", "qa"], "a fixed weight is given for 'qa', which is no domain"),
        (["--packing", "loose"], "--packing loose is unknown"),
        (["--unimax", "2"], "--unimax needs --tokens"),
        (["--schedule", "{run}/nowhere.yaml"], "cannot read schedule file"),
        (["--format", "xml"], "unknown format 'xml'"),
        (["{run}/documents"], "has no packs (packs/DOMAIN/pack.json)"),
    ],
)
def test_wrong_options_of_mix_write_nothing(
    call: Call, small: SmallRun, tmp_path: Path, arguments: list[str], message: str
) -> None:
    path = tmp_path / "mix.json"
    called = call("mix", small.run_dir, "-o", path, *(text.format(run=small.run_dir) for text in arguments))
    assert called.code == 1 and called.out == "" and called.err.startswith("error: ") and message in called.err
    assert called.err.count("\n") == 1 and not path.exists()


def test_mix_schedule_curriculum_and_preview(call: Call, small: SmallRun, tmp_path: Path) -> None:
    path, stages = tmp_path / "mix.json", tmp_path / "stages.yaml"
    stages.write_text(
        "stages:\n- {name: balanced, until: 70%, policy: natural}\n- {name: code, until: 1, weights: {code: 1}}\n"
    )
    arguments = ["mix", "build", small.run_dir, "-o", path, "--schedule", stages, "--order", "web=num_tokens:desc"]
    called = call(*arguments, "--fixed", "code", "--tokens", "100", "--max-epochs", "code=2", "--packing", "best-fit")
    assert called.code == 0 and called.err == ""
    manifest = load_mixture(path)
    assert [stage.name for stage in manifest.schedule] == ["balanced", "code"] and manifest.packing == "best-fit"
    order = manifest.domains["web"].order
    assert order is not None and order.by == "num_tokens" and order.descending
    assert not manifest.domains["code"].reweighted and manifest.domains["code"].max_epochs == 2
    assert manifest.domains["code"].pack_sha256 is not None
    for line in ("stage code, up to 100%: 30 tokens", "what 100 tokens will contain", "what stage code will contain"):
        assert line in called.out.splitlines()
    shown = call("mix", "show", path, "--tokens", "100")
    assert shown.code == 0 and shown.out == called.out.replace(f"\nWrote {path}.\n", "")
    rows = list(csv.DictReader(io.StringIO(call("mix", "show", path, "--tokens", "100", "--format", "csv").out)))
    assert sum(int(row["tokens_drawn"]) for row in rows if row["stage"] == "all") == pytest.approx(100, abs=3)
    assert {row["domain"] for row in rows if row["stage"] == "code"} == {"code"}
    no_pin = call("mix", small.run_dir, "-o", path, "--no-pin", "--alpha", "0", "--format", "json")
    assert no_pin.code == 0 and all(json.loads(line)["stage"] == "all" for line in no_pin.out.splitlines())
    manifest = load_mixture(path)
    assert manifest.domains["web"].pack_sha256 is None and manifest.domains["web"].weight == 0.5


def test_mix_unimax_files_and_recipes(call: Call, small: SmallRun, tmp_path: Path) -> None:
    path, file = tmp_path / "mix.json", tmp_path / "w.csv"
    called = call("mix", small.run_dir, "-o", path, "--unimax", "1", "--tokens", "100")
    assert called.code == 0 and "policy unimax 1; table for 100 training tokens." in called.out
    code = load_mixture(path).domains["code"]
    assert code.weight == pytest.approx(code.num_tokens / 100) and code.max_epochs == 1
    file.write_text("domain,weight\nweb,0.9\ncode,0.1\n")
    assert call("mix", small.run_dir, "-o", path, "--weights", file).code == 0
    assert load_mixture(path).domains["web"].weight == 0.9
    recipe = call("mix", small.run_dir, "-o", path, "--recipe", "gpt3", "--map", "code=books1")
    assert recipe.code == 1 and "no domain is webtext2, books2, wikipedia" in recipe.err
    assert "common_crawl" in call("mix", "recipes").out


def test_mix_fit(call: Call, small: SmallRun, tmp_path: Path) -> None:
    file, path = tmp_path / "runs.csv", tmp_path / "fitted.json"
    shares = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    losses = [1 + math.exp(-2 * share) + math.exp(-3 * (1 - share)) for share in shares]
    rows = [f"{share},{1 - share:.1f},{loss:.6f}" for share, loss in zip(shares, losses, strict=True)]
    file.write_text("weight.code,weight.web,loss.all\n" + "\n".join(rows) + "\n")
    called = call("mix", "fit", file, "--kl", "0")
    assert called.code == 0 and "olmix on 9 runs, KL penalty 0." in called.out and "Wrote" not in called.out
    fit = ["mix", "fit", file, small.run_dir, "-o", path]
    called = call(*fit, "--kl", "0", "--tokens", "100", "--max-epochs", "code=1")
    assert called.code == 0 and called.err == "" and called.out.splitlines()[-1] == f"Wrote {path}."
    manifest = load_mixture(path)
    assert manifest.policy.name == "fitted" and "olmix on 9 runs of runs.csv" in manifest.policy.note
    code = manifest.domains["code"]
    assert code.weight <= code.num_tokens / 100 * (1 + 1e-6) and code.max_epochs == 1
    near = call("mix", "fit", file, small.run_dir, "-o", path, "--kl", "1000", "--format", "json")
    fitted = {row["name"]: row["fitted"] for row in map(json.loads, near.out.splitlines()) if row["kind"] == "weight"}
    natural = code.num_tokens / (code.num_tokens + manifest.domains["web"].num_tokens)
    assert fitted["code"] == pytest.approx(natural, abs=0.01)
    for arguments, message in (
        (["mix", "fit", file, "--tokens", "5"], "--max-epochs and --tokens are about packs: give the RUN… folders"),
        ([*fit, "--method", "magic"], "--method magic is unknown"),
        ([*fit, "--target", "web"], "there is no loss 'web' in the runs"),
        ([*fit, "--prior", "web=1"], "no weight is given for domain 'code'"),
        ([*fit, "--tokens", "9k", "--max-epochs", "1"], "the epoch caps allow"),
        (["mix", "fit", tmp_path / "no.csv"], "cannot read proxy runs"),
    ):
        failed = call(*arguments)
        assert failed.code == 1 and message in failed.err, failed.err


def test_mix_handover(call: Call, small: SmallRun, tmp_path: Path) -> None:
    path, module = tmp_path / "mix.json", tmp_path / "mixture.py"
    assert call("mix", small.run_dir, "-o", path).code == 0
    handover = ["mix", "handover", path, "--sequence-length", "8", "--batch-size", "2"]
    printed = call(*handover, "--to", "megatron")
    assert printed.code == 0 and f"{small.run_dir}/packs/code/" in printed.out
    written = call(*handover, "--to", "torchtitan", "-o", module)
    assert written.code == 0 and written.out == "" and "WeightedDataset" in module.read_text()
    assert "data_stages:" in call(*handover, "--to", "nanotron", "--root", tmp_path / "ds").out
    refused = call(*handover, "--to", "llm-foundry")
    assert refused.code == 1 and "--to mds --sequence-length 8 --output DIR" in refused.err
    too_few = call("mix", "handover", path, "--to", "megatron")
    assert too_few.code == 1 and "stage 'all' has none. Give more --tokens, or a smaller --batch-size" in too_few.err


def test_a_manifest_is_shown_without_its_packs_and_its_schema_is_printed(
    call: Call, small: SmallRun, tmp_path: Path
) -> None:
    path = tmp_path / "a" / "mix.json"
    assert call("mix", small.run_dir, "-o", path).code == 0
    moved = tmp_path / "elsewhere" / "b" / "mix.json"
    moved.parent.mkdir(parents=True)
    moved.write_text(path.read_text())
    shown = call("mix", "show", moved)
    assert shown.code == 0 and "the packs are not where the manifest says" in shown.out
    plain = call("mix", "show", moved, "--format", "json")
    assert plain.code == 1 and "no pack at" in plain.err
    schema = json.loads(call("mix", "schema").out)
    assert schema["title"] == "MixtureManifest" and "order" in schema["$defs"]["Domain"]["properties"]


# --- stages, help, start


def test_stages_lists_every_stage_with_a_sentence(call: Call) -> None:
    called = call("stages")
    assert called.code == 0
    for name in STAGES:
        line = next(line for line in called.out.splitlines() if line.startswith(name + " "))
        assert len(line.split()) > 4


def test_options_of_every_stage(call: Call) -> None:
    called = call("stages", "write_packs")
    assert called.code == 0
    line = next(line for line in called.out.splitlines() if line.startswith("eos_token"))
    assert line.split(maxsplit=3)[:3] == ["eos_token", "str", "'<|endoftext|>'"]
    assert "Path | None" in called.out and "pathlib" not in called.out
    for name in STAGES:
        assert "PydanticUndefined" not in call("stages", name).out
    unknown = call("stages", "wrte_packs")
    assert unknown.code == 1 and unknown.err == "error: unknown stage 'wrte_packs'; did you mean 'write_packs'?\n"


@pytest.mark.parametrize("command", ["", "run", "plan", "sql", "explain", "mix", "stages", "trace", "remove", "packs"])
def test_help(call: Call, command: str) -> None:
    called = call(*command.split(), "--help")
    assert called.code == 0 and "Usage: dataeng" in called.out and called.err == ""
    if not command:
        assert all(f" {name} " in called.out for name in ("run", "plan", "sql", "explain", "mix", "stages"))


@pytest.mark.parametrize("arguments", [["bogus"], ["run"], ["run", "x.yaml", "--workers", "0"], ["run", "x", "--nope"]])
def test_usage_errors_exit_with_two(call: Call, arguments: list[str]) -> None:
    called = call(*arguments)
    assert called.code == 2 and "Usage: dataeng" in called.err


def test_starting_imports_nothing_heavy() -> None:
    code = "import sys, dataeng.cli; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {
        "polars",
        "numba",
        "torch",
        "pyarrow",
        "numpy",
        "duckdb",
        "pydantic",
        "tokenizers",
        "ruamel",
        "distributed",
    }
    assert not heavy & set(done.stdout.split())


def test_module_and_broken_pipe(small: SmallRun) -> None:
    """``python -m dataeng … | head`` ends quietly."""
    command = [sys.executable, "-m", "dataeng", "sql", str(small.run_dir), "--format", "csv"]
    command.append("SELECT a.text FROM documents a, documents b, documents c, documents d, documents e, documents f")
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "COLUMNS": "80"}
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == b"text\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) in (0, 1)


# --- rules


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> RulesRun:
    """A complete run with rules; leave it as it is."""
    made = RulesRun(tmp_path_factory.mktemp("cli_rules"))
    made.run()
    return made


def test_tune_prints_what_would_flip(call: Call, ruled: RulesRun) -> None:
    called = call("tune", ruled.run_dir, "--set", "mine.min_words=3")
    assert called.code == 0 and called.err == ""
    assert called.out.startswith(
        "step web_rules: mine.min_words 5 → 3\n5 documents judged again: 2 kept before, 3 after ("
    )
    assert "dropped → kept: 1 documents, 13 B, ~" in called.out and "https://a.example/three" in called.out
    rows = [
        json.loads(line)
        for line in call("tune", ruled.run_dir, "--set", "mine.min_words=3", "--format", "json").out.splitlines()
    ]
    assert [(row["kind"], row["old"], row["new"], row["documents"]) for row in rows] == [
        ("dropped → kept", "mine_short", None, 1)
    ]
    assert "no decision changes" in call("tune", ruled.run_dir, "--set", "mine.min_words=4").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to change: give --set FAMILY.PARAMETER=NUMBER or --preset NAME"),
        (["--set", "mine.min_word=3"], "did you mean 'mine.min_words'?"),
        (["--set", "mine.min_words=few"], "--set mine.min_words=few: 'few' is not a number, and not null"),
        (["--preset", "gopher@papers"], "several steps of the run"),
        (["--preset", "gopher@papers", "--step", "web_rules"], "did you mean 'gopher@paper'?"),
        (["--set", "mine.min_words=3", "--format", "xml"], "unknown format 'xml'"),
    ],
)
def test_wrong_options_of_tune(call: Call, ruled: RulesRun, arguments: list[str], message: str) -> None:
    called = call("tune", ruled.run_dir, *arguments)
    assert called.code == 1 and called.out == "" and message in called.err and called.err.count("\n") == 1


def test_diff_presets_names_the_documents(call: Call, ruled: RulesRun) -> None:
    called = call("diff-presets", ruled.run_dir, ruled.mine, ruled.other)
    assert called.code == 0 and called.err == ""
    assert "7 documents with signals" in called.out and "https://a.example/hashes" in called.out
    rows = list(
        csv.DictReader(io.StringIO(call("diff-presets", ruled.run_dir, ruled.mine, ruled.other, "--format", "csv").out))
    )
    assert {row["url"]: (row["first"], row["second"]) for row in rows} == {
        "https://a.example/three": ("mine_short", ""),
        "https://a.example/hashes": ("mine_hashes", ""),
        "https://a.example/repeated": ("mine_dup_lines", ""),
    }
    limited = call("diff-presets", ruled.run_dir, ruled.mine, ruled.other, "--format", "json", "--limit", "1").out
    assert limited.count("\n") == 1
    assert "… 2 more" in call("diff-presets", ruled.run_dir, ruled.mine, ruled.other, "--limit", "1").out
    called = call("diff-presets", ruled.run_dir, ruled.mine, "gopher@papers")
    assert called.code == 1 and "did you mean 'gopher@paper'?" in called.err


def test_explain_shows_rules_and_marks(call: Call, ruled: RulesRun) -> None:
    out = call("explain", ruled.run_dir, "https://a.example/hashes").out
    assert "rules of web_rules" in out and "BROKEN FIRST" in out
    assert "text, marked: characters '#' (2)" in out and ">>#<< >>#<< one two" in out


def test_presets_lists_them_and_shows_one(call: Call, ruled: RulesRun) -> None:
    listed = call("presets").out
    assert "gopher@paper" in listed and "fineweb2@code" in listed
    shown = call("presets", "fineweb@paper").out
    assert "fineweb.char_duplicates_ratio = 0.1" in shown and "fineweb_short_line_ratio" in shown
    assert "mine_hashes" in call("presets", ruled.mine).out
    assert call("presets", "--markdown").out.startswith("### Signals\n")
    called = call("presets", "gopher@papers")
    assert called.code == 1 and "unknown preset 'gopher@papers'; did you mean 'gopher@paper'?" in called.err
