"""The command line: what a person sees, and one clear error for each wrong input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from dataeng.formats.mixture import load_mixture, save_mixture
from trainer.cli import app
from trainer.watching.metrics import StepRecord
from trainer.watching.progress import PlainWatcher

SMALL = ["--steps", "4", "--batch-size", "2", "--sequence-length", "32", "--threads", "1", "--device", "cpu"]


def invoke(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def error_of(*arguments: object) -> str:
    code, _, stderr = invoke(*arguments)
    assert code == 1
    assert "Traceback" not in stderr
    assert stderr.startswith("error: ")
    return stderr.strip()


def test_a_run_prints_losses_and_where_things_are(mixture: Path, tmp_path: Path) -> None:
    code, stdout, stderr = invoke("--mixture", mixture, *SMALL)
    assert (code, stderr) == (0, "")
    assert "step 1/4  loss 5." in stdout
    assert "step 4/4  loss" in stdout
    table = [line.split() for line in stdout.splitlines()]
    assert ["domain", "first", "loss", "last", "loss", "weight", "share", "epochs"] in table
    assert [row[0] for row in table if len(row) == 6] == ["code", "prose", "tables"]
    assert f"run: {tmp_path / 'run' / 'training' / 'mix'}" in stdout
    assert "learned mixture: " in stdout
    code, stdout, _ = invoke("--mixture", mixture, *SMALL)
    assert code == 0
    assert "after step 4" in stdout
    assert "step 4/4" not in stdout


def test_held_out_losses_are_shown(mixture: Path) -> None:
    options = ["--validate", mixture, "--validate-every", 2, "--validate-tokens", 100, "--peak-flops", "1e9"]
    code, stdout, stderr = invoke("--mixture", mixture, *SMALL, *options)
    assert (code, stderr) == (0, "")
    assert "packs of code, prose, tables are trained on, too" in stdout
    assert "held-out loss after step 0: 5." in stdout and "held-out loss after step 4: " in stdout
    assert "MFU" in stdout and "memory" in stdout
    table = [line.split() for line in stdout.splitlines()]
    assert ["domain", "first", "loss", "last", "loss", "held-out", "weight", "share", "epochs"] in table
    assert [row[0] for row in table if len(row) == 7] == ["code", "prose", "tables"]
    assert "smallest held-out loss: " in stdout and "after step 4, the mean of the domains" in stdout


def test_help_has_every_option_in_a_panel_and_explained() -> None:
    train = typer.main.get_command(app).commands["train"]  # type: ignore[attr-defined]
    options = {option.name: option for option in train.params}
    assert len(options) >= 50
    assert [name for name, option in options.items() if not (option.rich_help_panel and option.help)] == []
    code, stdout, _ = invoke("--help")
    assert code == 0 and "trainer train --help" in " ".join(stdout.split())


@pytest.mark.parametrize(
    ("arguments", "way_on"),
    [
        ([], "the same command"),
        (["--no-resume"], "the same command without --no-resume"),
        (["--resume-from", "1"], "the same command without --resume-from"),
    ],
)
def test_a_stopped_run_names_the_command_that_goes_on(
    mixture: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], way_on: str
) -> None:
    common = ["--mixture", mixture, *SMALL, "--checkpoint-every", 1, "--keep-checkpoints", 4]

    def stop_at(step: int) -> None:
        def show(self: PlainWatcher, record: StepRecord) -> None:
            if record.step == step:
                os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(PlainWatcher, "step", show)

    stop_at(2)
    assert invoke(*common)[0] == 130
    stop_at(3)
    code, stdout, _ = invoke(*common, *arguments)
    assert code == 130
    assert f"stopped; {way_on} goes on at step 3 of 4" in stdout


def test_altered_packs_are_refused_unless_told_otherwise(mixture: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "run" / "packs" / "prose" / "00001.bin"
    tokens.write_bytes(b"\x41\x00" + tokens.read_bytes()[2:])
    assert "00001.bin was altered" in error_of("--mixture", mixture, *SMALL)
    assert "00001.bin was altered" in error_of("--mixture", mixture, *SMALL, "--verify-packs")
    assert invoke("--mixture", mixture, *SMALL, "--no-verify-packs")[0] == 0


def test_module_and_help_start_without_pytorch() -> None:
    code = "import sys, trainer.cli; sys.exit('torch' in sys.modules or 'polars' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    shown = subprocess.run([sys.executable, "-m", "trainer", "--help"], capture_output=True, text=True)
    assert shown.returncode == 0
    assert "--mixture" in shown.stdout


def test_missing_and_broken_manifests(tmp_path: Path, mixture: Path) -> None:
    assert "cannot read mixture manifest" in error_of("--mixture", tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{")
    assert "broken.json: manifest: Invalid JSON" in error_of("--mixture", tmp_path / "broken.json")
    values = json.loads(mixture.read_text())
    values["domains"]["code"]["weight"] = 0.9
    (tmp_path / "sum.json").write_text(json.dumps(values))
    assert "weights sum to 1.5, expected 1 (code 0.9, prose 0.35, tables 0.25)" in error_of(
        "--mixture", tmp_path / "sum.json"
    )


def test_missing_and_changed_packs(mixture: Path, tmp_path: Path) -> None:
    pack = tmp_path / "run" / "packs" / "prose"
    manifest = (pack / "pack.json").read_text()
    (pack / "pack.json").write_text(manifest.replace("b" * 64, "c" * 64))
    assert "made with another tokenizer" in error_of("--mixture", mixture, *SMALL)
    (pack / "pack.json").write_text(manifest)
    (pack / "00001.bin").write_bytes((pack / "00001.bin").read_bytes()[:-2])
    assert "00001.bin has" in error_of("--mixture", mixture, *SMALL)
    (pack / "pack.json").unlink()
    assert f"no pack at {mixture.parent / '../run/packs/prose'}" in error_of("--mixture", mixture, *SMALL)
    assert not (tmp_path / "run" / "training").exists()


def test_checkpoints_of_another_model_and_damaged_ones(mixture: Path, tmp_path: Path) -> None:
    """Said before anything is changed; what there was goes on to be what it was."""
    assert invoke("--mixture", mixture, *SMALL, "--checkpoint-every", 2)[0] == 0
    out = tmp_path / "run" / "training" / "mix"
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for options, what in (
        (["--preset", "5m"], "model.num_layers 4 → 5"),
        (["--qk-norm"], "--qk-norm False → True"),
        (["--optimizer", "muon"], "--optimizer adamw → muon"),
    ):
        message = error_of("--mixture", mixture, *SMALL, *options)
        assert f"step-00000004 was made with another configuration: {what}" in message
        assert "Use the same to resume, another --out for a new run, or --no-resume to discard this one" in message
    newest = out / "checkpoints" / "step-00000004"
    for name, data, what in (
        ("model.safetensors", before[newest / "model.safetensors"][:999], "model.safetensors has 999 bytes"),
        (
            "optimizer.safetensors",
            b"\0" * len(before[newest / "optimizer.safetensors"]),
            "optimizer.safetensors was",
        ),
        ("state.json", before[newest / "state.json"][:999], "cannot read checkpoint"),
    ):
        (newest / name).write_bytes(data)
        message = error_of("--mixture", mixture, *SMALL)
        assert what in message
        assert "Nothing was changed. --resume-from 2 goes back to the one before, --no-resume starts over." in message
        (newest / name).write_bytes(before[newest / name])
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file() if path.name != ".lock"} == {
        path: data for path, data in before.items() if path.name != ".lock"
    }
    (newest / "rng.safetensors").unlink()
    assert "rng.safetensors is missing" in error_of("--mixture", mixture, *SMALL)
    code, stdout, _ = invoke("--mixture", mixture, *SMALL, "--resume-from", 2)
    assert code == 0 and "after step 2" in stdout
    assert (newest / "model.safetensors").read_bytes() == before[newest / "model.safetensors"]


def test_wrong_places_are_named(mixture: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert f"{run} is a folder; expected a mixture manifest, a file; `dataeng mix {run}` makes" in error_of(
        "--mixture", run
    )
    (run / "run.json").write_text("{}")  # as of a pipeline
    assert invoke("--mixture", mixture, *SMALL)[0] == 0
    for command in (["report"], ["export", "--to", tmp_path / "new"], ["evaluate", "--mixture", mixture]):
        assert f"it is a pipeline's, and holds {run / 'training' / 'mix'}." in error_of(*command, run)
    code, stdout, stderr = invoke(mixture)
    assert code == 2 and "trainer --mixture" in stderr
    assert "cannot write" in error_of("report", run / "training" / "mix", "--to", tmp_path)
    code, stdout, _ = invoke("--mixture", mixture, *SMALL)
    assert code == 0 and "nothing to do: all 4 steps were done before" in stdout


def test_ctrl_c_before_the_first_step_is_answered(mixture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trainer.loop.train", interrupted)
    code, _, stderr = invoke("--mixture", mixture, *SMALL)
    assert (code, stderr) == (130, "stopped. What was saved is kept: run the same command again to go on.\n")


def test_rows_that_cannot_be(mixture: Path) -> None:
    message = error_of("--mixture", mixture, *SMALL, "--sequence-length", 10_000_000)
    assert "too few for one row of 10,000,000 + 1; use --sequence-length" in message
    manifest = load_mixture(mixture)
    domains = {name: domain.model_copy(update={"max_epochs": 0.001}) for name, domain in manifest.domains.items()}
    save_mixture(mixture, manifest.model_copy(update={"domains": domains}))
    message = error_of("--mixture", mixture, *SMALL)
    assert "8 rows are asked for, but the epoch caps exhaust all domains after" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "tinny"], "did you mean 'tiny'"),
        (["--device", "abacus"], "--device abacus is unknown; use cpu, cuda or cuda:N"),
        (["--device", "meta"], "--device meta is not supported"),
        (["--device", "cuda:99"], "--device cuda:99: this machine has"),
        (["--resume-from", "3"], "there is no checkpoint of step 3"),
        (["--steps", "0"], "--steps is 0"),
    ],
)
def test_wrong_options(mixture: Path, arguments: list[str], message: str) -> None:
    assert message in error_of("--mixture", mixture, *SMALL, *arguments)
