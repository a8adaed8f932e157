"""Whole runs: every domain learns; a killed run resumes bit for bit; folders are guarded."""

from __future__ import annotations

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

import trainer.step
from dataeng.errors import ConfigError, DataengError, FormatError, LeaseError
from dataeng.formats import atomic
from dataeng.formats.atomic import sha256_file
from dataeng.formats.mixture import Domain, MixtureStage, load_mixture, save_mixture
from trainer.config import TrainConfig
from trainer.data.rows import MixtureRows
from trainer.device import OnItsWay
from trainer.loop import TrainingReport, train
from trainer.model.attention import Documents
from trainer.parallel.ranks import Ranks
from trainer.recovery.session import held
from trainer.run import Run
from trainer.watching.metrics import StepRecord

MakeConfig = Callable[..., TrainConfig]
MEASURED = ("seconds", "tokens_per_second", "mfu", "peak_memory_bytes")  # of the machine, not of the run


class Recorder:
    """A watcher that keeps what it is told, and does something at one step."""

    def __init__(self, at_step: int | None = None, action: Callable[[], object] = lambda: None) -> None:
        self.at_step, self.action = at_step, action
        self.notes: list[str] = []
        self.steps: list[int] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def begin(self, first_step: int, num_steps: int) -> None:
        self.steps.clear()

    def step(self, record: StepRecord) -> None:
        self.steps.append(record.step)
        if record.step == self.at_step:
            self.action()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def run(config: TrainConfig, watcher: Recorder | None = None) -> TrainingReport:
    return train(config, load_mixture(config.mixture), watcher or Recorder())


def numbers(out: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """All metrics but the times."""
    metrics = pl.read_parquet(out / "metrics" / "*.parquet").sort("step", maintain_order=True)
    steps = pl.read_parquet(out / "steps" / "*.parquet").sort("step").drop(MEASURED)
    return metrics, steps


def assert_same_run(one: Path, other: Path, last_step: int) -> None:
    for found, expected in zip(numbers(one), numbers(other), strict=True):
        assert found.equals(expected)
        assert found["step"].unique().sort().to_list() == list(range(1, last_step + 1))
    for name in ("model", "optimizer"):
        files = [out / "checkpoints" / f"step-{last_step:08d}" / f"{name}.safetensors" for out in (one, other)]
        assert sha256_file(files[0]) == sha256_file(files[1]), name


def test_every_domain_learns_and_the_run_describes_itself(make_config: MakeConfig, mixture: Path) -> None:
    config = make_config(steps=80, batch_size=8, learning_rate=4e-3, checkpoint_every=40)
    report = run(config)
    assert (report.step, report.saved_mixture) == (80, config.out / "mix.json")
    for domain in report.domains:
        assert domain.first_loss is not None and domain.last_loss is not None
        assert domain.first_loss > 4, domain  # ln 257 = 5.5 at the very first step
        assert domain.last_loss < 0.8 * domain.first_loss, domain
    metrics, steps = numbers(config.out)
    assert (metrics.group_by("step").agg(pl.col("weight").sum())["weight"] - 1).abs().max() < 1e-9
    per_step = metrics.group_by("step", maintain_order=True).agg(
        (pl.col("loss") * pl.col("tokens")).sum() / pl.col("tokens").sum(),
        weighted=(pl.col("loss") * pl.col("tokens") * pl.col("multiplier")).sum() / pl.col("tokens").sum(),
    )
    assert (per_step["loss"] - steps["loss"]).abs().max() < 1e-9
    assert (per_step["weighted"] - steps["weighted_loss"]).abs().max() < 1e-5
    assert steps["learning_rate"].max() == 4e-3
    assert metrics.group_by("domain").agg(pl.col("tokens").sum())["tokens"].sum() == 80 * 8 * 64
    told = json.loads((config.out / "training.json").read_text())
    assert (told["status"], told["step"], told["domains"]) == ("finished", 80, ["code", "prose", "tables"])
    learned = load_mixture(config.out / "mix.json")
    assert learned.policy.name == "learned"
    weighted = metrics.filter(pl.col("step") > 2)  # two steps of warm-up
    means = {name: weighted.filter(pl.col("domain") == name)["weight"].mean() for name in learned.domains}
    assert {name: domain.weight for name, domain in learned.domains.items()} == pytest.approx(means)
    save_mixture(mixture.parent / "second.json", learned)  # the way back: the learned manifest trains as it is
    second = make_config(mixture=config.out / "mix.json", steps=2)
    assert second.out == config.out.parent / "mix-2"
    assert run(second).step == 2


def test_without_reweighting_the_loss_is_the_plain_mean(make_config: MakeConfig) -> None:
    config = make_config(steps=5, reweighting="none")
    run(config)
    metrics, steps = numbers(config.out)
    assert metrics["multiplier"].unique().to_list() == [1.0]
    assert (steps["loss"] - steps["weighted_loss"]).abs().max() < 1e-5


@pytest.mark.parametrize("packing", ["best-fit", "aligned"])
def test_packed_documents_are_trained_on_apart_and_resumed(
    make_config: MakeConfig,
    mixture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    packing: str,
    write_pack: Any,
) -> None:
    """Only labels count, the model is told where documents are, and a stopped run goes on bit for bit."""
    seen: list[torch.Tensor] = []
    real = Documents.to
    monkeypatch.setattr(Documents, "to", lambda found, device: seen.append(found.index_bt) or real(found, device))
    documents = [[i % 250] * (20 + i * 7 % 60) for i in range(40)]
    write_pack(tmp_path / "short", "short", [documents])
    tokens = sum(map(len, documents))
    domains = {"short": Domain(packs=["../short"], num_documents=40, num_tokens=tokens, weight=1)}
    short = mixture.parent / "short.json"
    save_mixture(short, load_mixture(mixture).model_copy(update={"domains": domains}))
    options = {"steps": 4, "packing": packing, "mixture": short}
    unbroken = make_config(out=tmp_path / "unbroken", **options)
    run(unbroken)
    assert len(seen) == 4 and seen[0].shape == (4, 64)
    rows = MixtureRows(load_mixture(short), short, 64, packing)
    drawn = rows.sampler(rows.planned_stages(16), unbroken.seed).take(16)
    batch = rows.batch(*drawn)
    assert torch.cat(seen).tolist() == batch.documents[:, :-1].tolist()
    metrics, _ = numbers(unbroken.out)
    assert metrics["tokens"].sum() == batch.labels.sum() < 16 * 64
    assert metrics["loss"].is_finite().all()
    stopped = make_config(out=tmp_path / "stopped", **options)
    run(stopped, Recorder(2, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert run(stopped).step == 4
    assert_same_run(stopped.out, unbroken.out, 4)
    with pytest.raises(ConfigError, match=f"--packing {packing} → concatenate"):
        run(make_config(out=tmp_path / "stopped", **{**options, "packing": "concatenate"}))


KILLED = """
import os, signal, sys
from pathlib import Path
from typing import Any
from dataeng.formats.mixture import load_mixture
from rich.console import Console
from trainer.config import derive_config
from trainer.options import Options
from trainer.loop import train
from trainer.watching.progress import PlainWatcher

class Killed(PlainWatcher):
    def step(self, record):
        super().step(record)
        if record.step == int(sys.argv[5]):
            os.kill(os.getpid(), signal.SIGKILL)

mixture, out, threads, steps = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
options = Options(mixture=mixture, out=out, steps=steps, batch_size=4, sequence_length=64, threads=threads,
                  checkpoint_every=steps // 2, device="cpu")
manifest = load_mixture(mixture)
train(derive_config(options, manifest), manifest, Killed(Console()))
"""


def test_a_killed_run_on_two_threads_resumes_bit_for_bit(
    make_config: MakeConfig, mixture: Path, tmp_path: Path
) -> None:
    """Half the steps, then a few more that are lost with the process, then the rest: as if it had never died."""
    threads, steps = 2, 8
    half, fatal = steps // 2, steps // 2 + 3
    options = {"threads": threads, "steps": steps, "checkpoint_every": half}
    unbroken, broken = (make_config(out=tmp_path / name, **options) for name in ("unbroken", "broken"))
    run(unbroken)
    arguments = [sys.executable, "-c", KILLED, mixture, broken.out, str(threads), str(steps), str(fatal)]
    killed = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert json.loads((broken.out / "training.json").read_text())["status"] == "running"
    assert [path.name for path in (broken.out / "checkpoints").iterdir()] == [f"step-{half:08d}"]
    watcher = Recorder()
    run(broken, watcher)
    assert watcher.steps == list(range(half + 1, steps + 1))
    assert any(f"after step {half}" in note for note in watcher.notes)
    assert_same_run(broken.out, unbroken.out, steps)


def test_a_stop_signal_saves_and_the_same_command_goes_on(make_config: MakeConfig, tmp_path: Path) -> None:
    unbroken, stopped = (make_config(steps=12, out=tmp_path / name) for name in ("unbroken", "stopped"))
    run(unbroken)
    before = signal.getsignal(signal.SIGTERM)
    report = run(stopped, Recorder(7, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert (report.step, report.saved_mixture) == (7, None)
    assert signal.getsignal(signal.SIGTERM) is before
    assert json.loads((stopped.out / "training.json").read_text())["status"] == "stopped"
    assert not (stopped.out / "mix.json").exists()
    assert run(stopped).step == 12
    assert_same_run(stopped.out, unbroken.out, 12)


def test_a_finished_run_is_not_run_again(make_config: MakeConfig) -> None:
    config = make_config(steps=4, checkpoint_every=2)
    first = run(config)
    files = {path: path.stat().st_mtime_ns for path in config.out.rglob("*.parquet")}
    watcher = Recorder()
    assert run(config, watcher).domains == first.domains
    assert watcher.steps == []
    assert {path: path.stat().st_mtime_ns for path in config.out.rglob("*.parquet")} == files


def test_going_back_and_starting_over(make_config: MakeConfig, tmp_path: Path) -> None:
    config, unbroken = make_config(steps=6, checkpoint_every=2), make_config(steps=6, out=tmp_path / "unbroken")
    run(unbroken)
    run(config)
    watcher = Recorder()
    run(make_config(steps=6, checkpoint_every=2, resume_from=4), watcher)
    assert watcher.steps == [5, 6]
    assert_same_run(config.out, unbroken.out, 6)
    run(make_config(steps=6, checkpoint_every=2, resume=False), watcher)
    assert watcher.steps == [1, 2, 3, 4, 5, 6]
    assert_same_run(config.out, unbroken.out, 6)


def test_another_configuration_or_a_damaged_checkpoint_is_refused(make_config: MakeConfig) -> None:
    config = make_config(steps=4, checkpoint_every=2)
    run(config)
    before = numbers(config.out)
    with pytest.raises(ConfigError, match=r"--learning-rate 0.0015 → 0.5"):
        run(make_config(steps=4, learning_rate=0.5))
    model = config.out / "checkpoints" / "step-00000004" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:1000])
    with pytest.raises(FormatError, match=r"model.safetensors has 1,000 bytes.*--resume-from 2"):
        run(config)
    for found, expected in zip(numbers(config.out), before, strict=True):
        assert found.equals(expected)


def test_altered_packs_are_refused_at_the_start_and_at_a_resume(make_config: MakeConfig, tmp_path: Path) -> None:
    run(make_config(steps=4, checkpoint_every=2))
    pack = tmp_path / "run" / "packs" / "code"
    tokens = pack / "00000.bin"
    before = sha256_file(tokens)
    tokens.write_bytes(b"\x41" + tokens.read_bytes()[1:])
    assert sha256_file(tokens) != before
    for options in ({}, {"resume": False}, {"out": tmp_path / "other"}):
        with pytest.raises(FormatError, match=r"code/00000.bin was altered: its SHA-256 is not the one in pack.json"):
            run(make_config(steps=4, checkpoint_every=2, **options))
    assert run(make_config(steps=4, out=tmp_path / "other", verify_packs=False)).step == 4
    # A pack that is whole, of the same counts, but another one: the checkpoint does not fit it.
    manifest = (pack / "pack.json").read_text()
    (pack / "pack.json").write_text(manifest.replace(before, sha256_file(tokens)))
    with pytest.raises(ConfigError, match=r"made with another configuration: the packs of code"):
        run(make_config(steps=4, checkpoint_every=2))


def test_a_run_that_starts_over_leaves_no_learned_mixture_of_the_old_one(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(steps=4, checkpoint_every=2)
    run(config)
    for options, first in (({"resume": False}, 1), ({"resume_from": 2}, 3)):
        assert load_mixture(config.out / "mix.json").policy.name == "learned"
        found: list[bool] = []
        again = make_config(steps=4, checkpoint_every=2, **options)
        run(again, Recorder(first, lambda found=found: found.append((config.out / "mix.json").exists())))
        assert found == [False]
    # The manifest that is trained on stays, even in the folder of the run that learned it.
    learned = config.out / "mix.json"
    kept: list[bool] = []
    elsewhere = tmp_path / "learned_again.json"
    again = make_config(steps=4, mixture=learned, out=config.out, resume=False, save_mixture=elsewhere)
    run(again, Recorder(1, lambda: kept.append(learned.exists())))
    assert kept == [True]


def test_two_trainers_do_not_share_a_folder(make_config: MakeConfig) -> None:
    config = make_config(steps=2)
    with held(config.out), pytest.raises(LeaseError, match=f"another trainer .process {os.getpid()}. is writing to"):
        run(config)
    assert run(config).step == 2


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_checkpoint(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(steps=6, checkpoint_every=2, on_spike="stop")
    from trainer.model.cross_entropy import token_losses as real

    def losses(*arguments: Any, **options: Any) -> torch.Tensor:
        return real(*arguments, **options) * float("nan")

    poisoned = Recorder(3, lambda: monkeypatch.setattr("trainer.step.token_losses", losses))

    with pytest.raises(DataengError, match=r"loss of .*code.* is not finite in step 4.*checkpoint of step 2 is intact"):
        run(config, poisoned)
    assert json.loads((config.out / "training.json").read_text())["status"].startswith("failed: the loss of")
    assert pl.read_parquet(config.out / "quarantine.parquet")["step"].unique().to_list() == [4]
    monkeypatch.undo()
    watcher = Recorder()
    run(config, watcher)
    assert watcher.steps == [3, 4, 5, 6]


def poison(monkeypatch: pytest.MonkeyPatch, steps: int) -> Recorder:
    """Makes the losses of one row infinite for ``steps`` steps, from the fourth on."""
    from trainer.model.cross_entropy import token_losses as real

    calls = 0

    def losses(*arguments: Any, **options: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        found = real(*arguments, **options)
        return torch.cat([found[:64] * float("inf"), found[64:]]) if calls <= steps else found

    return Recorder(3, lambda: monkeypatch.setattr("trainer.step.token_losses", losses))


def test_a_step_that_does_harm_is_left_out_and_its_documents_are_named(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(steps=6, checkpoint_every=2)
    watcher = poison(monkeypatch, 1)
    assert run(config, watcher).step == 6
    (incident,) = (json.loads(line) for line in (config.out / "incidents.jsonl").read_text().splitlines())
    assert (incident["step"], incident["action"]) == (4, "left the step out")
    assert "is not finite in step 4" in incident["what"] and "inf" in map(str, incident["losses"].values())
    documents = pl.read_parquet(config.out / "quarantine.parquet")
    assert 1 <= len(documents) == incident["documents"] and documents["row_loss"].is_infinite().all()
    assert documents["domain"].n_unique() == 1
    # One row of 64 + 1 tokens: its documents lie side by side in one pack.
    assert documents["document"].to_list() == list(range(documents["document"].min(), documents["document"].max() + 1))
    assert all(
        torch.isfinite(value).all()
        for value in load_file(config.out / "checkpoints/step-00000006/model.safetensors").values()
    )


def test_the_weights_are_those_of_a_run_that_never_saw_the_step(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Going back: the same steps again, without the harmful one, at half the learning rate."""
    config = make_config(steps=6, checkpoint_every=2, on_spike="roll-back")
    watcher = poison(monkeypatch, 1)
    assert run(config, watcher).step == 6
    assert watcher.steps == [1, 2, 3, 3, 4, 5, 6]
    rates = pl.read_parquet(config.out / "steps" / "*.parquet").sort("step")["learning_rate"].to_list()
    monkeypatch.undo()
    plain = make_config(steps=6, out=tmp_path / "plain")
    run(plain)
    expected = pl.read_parquet(plain.out / "steps" / "*.parquet").sort("step")["learning_rate"].to_list()
    assert rates == pytest.approx([*expected[:2], *(rate / 2 for rate in expected[2:])])
    (incident,) = (json.loads(line) for line in (config.out / "incidents.jsonl").read_text().splitlines())
    assert incident["action"] == "went back to the last checkpoint"


def test_what_a_run_went_back_for_stays_on_record_when_it_is_stopped_before_that_step(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step is left out when the resumed run comes to it: nobody would write it down again."""
    config = make_config(steps=6, checkpoint_every=2, keep_checkpoints=9, on_spike="roll-back")
    config = replace(config, model=replace(config.model, num_layers=1, dim=32, num_heads=2, num_kv_heads=1))
    watcher = poison(monkeypatch, 1)  # step 4: back to step 2
    actions = iter([watcher.action, lambda: os.kill(os.getpid(), signal.SIGTERM)])
    watcher.action = lambda: next(actions)()
    assert run(config, watcher).step == 3
    before = (config.out / "incidents.jsonl").read_bytes(), pl.read_parquet(config.out / "quarantine.parquet")
    watcher = Recorder()
    assert run(config, watcher).step == 6 and watcher.steps == [4, 5, 6]
    assert (config.out / "incidents.jsonl").read_bytes() == before[0] and b'"step": 4' in before[0]
    assert pl.read_parquet(config.out / "quarantine.parquet").equals(before[1]) and len(before[1])
    run(replace(config, resume_from=2))  # where it had not happened yet, and does not happen again
    assert not (config.out / "incidents.jsonl").read_bytes()
    assert pl.read_parquet(config.out / "quarantine.parquet").is_empty()


def test_ranks_that_would_go_back_to_different_steps_are_found_out(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that a network carries may show another machine the newest checkpoint late."""
    config = make_config(steps=6, checkpoint_every=2, on_spike="roll-back")
    watcher = poison(monkeypatch, 1)
    real = Ranks.agree

    def agree(self: Ranks, values: Any, what: str) -> None:
        if what.startswith("the last checkpoint") and values.tolist() == [2]:
            monkeypatch.setattr(self, "gather", lambda own: np.stack([own, own - 2]))
        real(self, values, what)

    monkeypatch.setattr(Ranks, "agree", agree)
    with pytest.raises(DataengError, match=r"the ranks differ in the last checkpoint .*: \[2.0\]; \[0.0\]"):
        run(config, watcher)


def test_a_run_in_which_nothing_goes_well_ends(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(steps=30, checkpoint_every=10)
    with pytest.raises(DataengError, match=r"is not finite in step 14; no update was made, the checkpoint of step 10"):
        run(config, poison(monkeypatch, 100))
    # Its seven steps up to the checkpoint still count.
    with pytest.raises(DataengError, match=r"is not finite in step 14; no update was made, the checkpoint of step 10"):
        run(config)


def test_no_rank_leaves_before_the_first_has_written_everything(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun ends all ranks with the first that leaves a stopped run."""
    config, found = make_config(steps=2, background_checkpoints=True), []

    class Leaving(Recorder):
        def __exit__(self, *_: object) -> None:
            found.append("the watcher")

    def wait_for_all(self: Ranks) -> None:
        path = config.out / "training.json"
        found.append(json.loads(path.read_text())["status"] if path.exists() else "the start")

    monkeypatch.setattr(Ranks, "wait_for_all", wait_for_all)
    run(config, Leaving())
    assert found == ["the start", "the watcher", "finished"]


def test_parts_give_the_gradient_of_the_whole(make_config: MakeConfig, tmp_path: Path) -> None:
    """Without reweighting, accumulation changes nothing but the order of sums; with it, weights are a step late."""
    whole = make_config(steps=6, batch_size=6, reweighting="none")
    parts = make_config(steps=6, batch_size=6, reweighting="none", accumulate=4, out=tmp_path / "parts")
    run(whole)
    run(parts)
    first, second = (numbers(config.out)[0]["loss"].to_numpy() for config in (whole, parts))
    np.testing.assert_allclose(first, second, rtol=1e-4)
    late = make_config(steps=6, batch_size=6, accumulate=2, out=tmp_path / "late")
    run(late)
    metrics = numbers(late.out)[0]
    for before, step in pairwise(range(3, 6)):
        rows, earlier = metrics.filter(step=step), metrics.filter(step=before)
        expected = earlier["weight"].to_numpy() / rows["share"].to_numpy()
        np.testing.assert_allclose(rows["multiplier"].to_numpy(), np.minimum(expected, 4.0), rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "waiting"),
    [
        ({}, "..xxxx.."),
        ({"interval": 2}, "..x.x..."),
        ({"feedback": "sampling"}, "........"),
        ({"method": "none"}, "." * 8),
    ],
)
def test_only_steps_that_move_the_weights_wait_for_their_losses(
    make_config: MakeConfig, mixture: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], waiting: str
) -> None:
    """Two steps of warm-up, and two of decay, in which weights are frozen: the gradient comes with the losses."""
    manifest = load_mixture(mixture)
    changed = manifest.reweighting.model_copy(update=options)
    save_mixture(mixture, manifest.model_copy(update={"reweighting": changed}))
    found = []
    for name, mark in (("token_losses", "x"), ("weighted_token_losses", ".")):
        real = getattr(trainer.step, name)
        monkeypatch.setattr(trainer.step, name, lambda *a, m=mark, f=real, **o: found.append(m) or f(*a, **o))
    run(make_config(steps=8))
    assert "".join(found) == waiting


class Waits(TorchDispatchMode):
    """Counts what makes the CPU wait for a GPU: reading a number, and results whose shape depends on values."""

    count = 0
    WAITING = (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.masked_select)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket in self.WAITING
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", [{}, {"reweighting": "none"}, {"accumulate": 2}])
def test_a_step_reads_two_things_from_the_device(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """The sums of rows (once for each part of the step) and the norm of the gradient; a GPU computes on meanwhile."""
    fetched = []
    real = OnItsWay.wait
    monkeypatch.setattr(OnItsWay, "wait", lambda found: fetched.append(1) or real(found))
    config = make_config(steps=8, update_ratio_every=0, **options)
    run = Run(config, load_mixture(config.mixture), Ranks(torch.device("cpu")))
    with run.loader:
        for step in range(1, 5):
            fetched.clear()
            with Waits() as waits:
                run.train_step(step, Recorder())
            assert (waits.count, len(fetched)) == (1, config.accumulate)


@pytest.mark.parametrize("feedback", ["sampling", "both"])
def test_shares_follow_the_weights(make_config: MakeConfig, mixture: Path, feedback: str) -> None:
    manifest = load_mixture(mixture)
    changed = manifest.model_copy(
        update={"reweighting": manifest.reweighting.model_copy(update={"feedback": feedback, "warmup_steps": 1})}
    )
    save_mixture(mixture, changed)
    config = make_config(steps=12, batch_size=8)
    run(config)
    metrics = numbers(config.out)[0].sort("step", "domain")
    shares = metrics["share"].to_numpy().reshape(12, 3)
    weights = metrics["weight"].to_numpy().reshape(12, 3)
    multipliers = metrics["multiplier"].to_numpy().reshape(12, 3)
    # Decay begins with step 10, where weights freeze: what is drawn is what the step before asked for.
    np.testing.assert_allclose(shares[2:], weights[1:-1], rtol=1e-6)
    if feedback == "sampling":
        assert (multipliers == 1).all()
    else:
        np.testing.assert_allclose(multipliers, np.minimum(weights / shares, 4.0), rtol=1e-6)


def test_a_new_stage_is_drawn_and_judged_as_its_own(make_config: MakeConfig, mixture: Path) -> None:
    """From its first row on: shares follow the weights among its own domains, and their losses are no spikes."""
    manifest = load_mixture(mixture)
    names = list(manifest.domains)
    changed = manifest.model_copy(
        update={
            "reweighting": manifest.reweighting.model_copy(update={"feedback": "sampling", "warmup_steps": 1}),
            "schedule": [
                MixtureStage(name="one", until=0.5, weights=dict(zip(names, [0.6, 0.4, 0.0], strict=True))),
                MixtureStage(name="two", until=1.0, weights=dict(zip(names, [0.0, 0.4, 0.6], strict=True))),
            ],
        }
    )
    save_mixture(mixture, changed)
    config = make_config(steps=8, batch_size=4)
    run(config)
    metrics = numbers(config.out)[0]
    shares = metrics["share"].to_numpy().reshape(8, 3)
    tokens = metrics["tokens"].to_numpy().reshape(8, 3)
    assert (shares[:4, 2] == 0).all() and (shares[4:, 0] == 0).all()
    np.testing.assert_allclose(shares[4, 1:], [0.4, 0.6], atol=0.02)  # as planned: nothing is known of the third yet
    assert (tokens[:4, 2] == 0).all() and (tokens[4:, 0] == 0).all() and tokens[4, 2] > 0
    state = json.loads((config.out / "checkpoints/step-00000008/state.json").read_text())
    assert state["spikes"]["stage"] == 1 and len(state["spikes"]["loss"]) == 4


def test_checkpoints_in_the_background_are_the_same(make_config: MakeConfig, tmp_path: Path) -> None:
    first = make_config(steps=6, checkpoint_every=2)
    second = make_config(steps=6, checkpoint_every=2, background_checkpoints=True, out=tmp_path / "second")
    run(first)
    run(second)
    assert_same_run(second.out, first.out, 6)


def test_a_full_disk_is_said_and_the_run_goes_on_later(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config, unbroken = make_config(steps=6, checkpoint_every=2), make_config(steps=6, out=tmp_path / "unbroken")
    run(unbroken)

    def fill_disk() -> None:
        def fail(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(atomic.fs, "write", fail)

    with pytest.raises(DataengError, match=r"cannot write to .*No space left on device; the checkpoint of step 2 is"):
        run(config, Recorder(3, fill_disk))
    monkeypatch.undo()
    watcher = Recorder()
    run(config, watcher)
    assert watcher.steps == [3, 4, 5, 6]
    assert_same_run(config.out, unbroken.out, 6)


def test_global_settings_are_left_as_they_were(make_config: MakeConfig) -> None:
    before = (torch.are_deterministic_algorithms_enabled(), torch.get_num_threads())
    run(make_config(steps=1, threads=2))
    assert (torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()) == before


def test_nothing_is_pickled(make_config: MakeConfig) -> None:
    config = make_config(steps=1)
    run(config)
    files = [path for path in config.out.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors", ".parquet", ""}
    for path in files:
        assert not path.read_bytes().startswith(pickle.PROTO)
