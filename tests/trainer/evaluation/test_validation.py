"""Held-out losses during a run: as `trainer evaluate` finds them, shared over ranks, and without a trace in the run."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from dataeng.errors import ConfigError, FormatError
from dataeng.formats.atomic import sha256_file
from dataeng.formats.mixture import Domain, MixtureManifest, Policy, load_mixture, save_mixture
from tests.trainer.conftest import EOS, TOKENIZER, VOCAB_SIZE, WritePack
from trainer.config import TrainConfig, ValidationConfig
from trainer.data.rows import MixtureRows
from trainer.evaluation.held_out import Floats, load_model, score
from trainer.evaluation.validation import Validation
from trainer.loop import train
from trainer.model.decoder import Decoder
from trainer.model.presets import ModelConfig
from trainer.watching.metrics import StepRecord, ValidationRecord
from trainer.watching.progress import SilentWatcher

MakeConfig = Callable[..., TrainConfig]
CPU = torch.device("cpu")
TINY = ModelConfig(vocab_size=257, dim=16, num_layers=1, num_heads=2, num_kv_heads=1, hidden_dim=32, max_positions=64)


class Listener(SilentWatcher):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def note(self, message: str) -> None:
        self.heard.append(message)

    def step(self, record: StepRecord) -> None:
        self.heard.append(f"step {record.step}")

    def validated(self, record: ValidationRecord) -> None:
        self.heard.append(f"validated {record.step}")


WriteHeldOut = Callable[..., Path]


@pytest.fixture
def write_held_out(tmp_path: Path, write_pack: WritePack) -> WriteHeldOut:
    """Returns ``write_held_out(domain=texts, …)``, the path of a manifest of packs of these."""

    def write(name: str = "held_out", tokenizer: str = TOKENIZER, **texts: Sequence[str]) -> Path:
        domains = {}
        for domain, documents in texts.items():
            tokens = [[*text.encode(), EOS] for text in documents]
            write_pack(tmp_path / name / domain, domain, [tokens], tokenizer)
            count = sum(map(len, tokens))
            domains[domain] = Domain(
                packs=[f"../{name}/{domain}"], num_documents=len(tokens), num_tokens=count, weight=1 / len(texts)
            )
        path = tmp_path / "manifests" / f"{name}.json"
        save_mixture(
            path,
            MixtureManifest(
                run=None,
                tokenizer_sha256=tokenizer,
                vocab_size=VOCAB_SIZE,
                domains=domains,
                policy=Policy(name="given"),
            ),
        )
        return path

    return write


@pytest.fixture
def held_out(write_held_out: WriteHeldOut, texts: dict[str, list[str]]) -> Path:
    """Texts of two domains with other words than those that are trained on, and of one that is not trained on."""
    return write_held_out(
        prose=[text.swapcase() for text in texts["prose"][:6]],
        code=[text.replace("self", "me") for text in texts["code"][:3]],
        verse=["the rose is red, the violet's blue, " * 40],
    )


def opened(held_out: Path, mixture: Path, **options: Any) -> Validation:
    trained = MixtureRows(load_mixture(mixture), mixture, 64)
    return Validation(ValidationConfig(mixture=held_out, every=3, tokens=64 * 9), trained, 10, CPU, **options)


def tiny() -> Decoder:
    model = Decoder(TINY)
    model.initialize(0)
    return model


def test_when_it_is_due(held_out: Path, mixture: Path) -> None:
    validation = opened(held_out, mixture)
    assert [step for step in range(11) if validation.is_due(step)] == [0, 3, 6, 9, 10]
    assert validation.warning is None


def test_the_model_trains_on_and_no_random_number_is_drawn(held_out: Path, mixture: Path) -> None:
    model, validation = tiny(), opened(held_out, mixture)
    modes: list[bool] = []
    model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    before = torch.get_rng_state(), np.random.get_state(legacy=True)[1].tolist()  # type: ignore[union-attr]
    first = validation.run(model, 3)
    assert set(modes) == {False} and model.training
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state(legacy=True)[1].tolist() == before[1]  # type: ignore[union-attr]
    assert all(parameter.grad is None for parameter in model.parameters())
    again = validation.run(model, 6)
    assert again.domains == first.domains and (first.step, again.step) == (3, 6)
    assert [d.domain for d in first.domains] == ["prose", "code", "verse"]
    assert first.mean_loss == pytest.approx(sum(d.loss for d in first.domains) / 3)
    model.eval()
    validation.run(model, 9)
    assert not model.training


def test_compiled_layers_are_not_compiled_anew(held_out: Path, mixture: Path) -> None:
    torch._dynamo.reset()
    model, validation, compiler = tiny(), opened(held_out, mixture), CompileCounterWithBackend("eager")
    expected = validation.run(model, 3)
    model.layers[0].compile(backend=compiler)
    for _ in range(2):
        model(torch.zeros(2, 64, dtype=torch.int64)).sum().backward()
        assert validation.run(model, 3) == expected
    assert compiler.frame_count == 1
    torch._dynamo.reset()


def test_ranks_share_the_rows_and_call_equally_often(held_out: Path, mixture: Path) -> None:
    alone = opened(held_out, mixture)
    expected = score(tiny(), alone.rows, 64 * 9, CPU)
    num_rows = sum(len(found.row_losses) for found in expected)
    assert num_rows % 8  # the last call is filled up
    for num_ranks in (2, 5):
        parts: list[Floats] = []
        calls: list[list[torch.Size]] = []
        for rank in range(num_ranks):
            model = tiny()
            calls.append(shapes_of_calls(model))
            score(model, alone.rows, 64 * 9, CPU, rank=rank, num_ranks=num_ranks, sum_over_ranks=kept_in(parts))
        assert all(shapes == calls[0] and set(shapes) == {torch.Size([8, 64])} for shapes in calls)
        assert (np.count_nonzero([part[1] for part in parts], axis=0) == 1).all()  # each row on one rank
        total = np.sum(parts, axis=0)
        found = score(tiny(), alone.rows, 64 * 9, CPU, num_ranks=num_ranks, sum_over_ranks=partial(the_other, total))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one.row_losses, other.row_losses, rtol=1e-6)
            assert np.array_equal(one.row_tokens, other.row_tokens)


def shapes_of_calls(model: nn.Module) -> list[torch.Size]:
    """A list that fills with the shapes of what the model is called with."""
    shapes: list[torch.Size] = []
    model.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape))
    return shapes


def the_other(total: Floats, own: Floats) -> Floats:
    return total


def kept_in(parts: list[Floats]) -> Callable[[Floats], Floats]:
    def keep(own: Floats) -> Floats:
        parts.append(own)
        return own

    return keep


def test_a_run_is_the_same_with_and_without(make_config: MakeConfig, mixture: Path, held_out: Path) -> None:
    manifest = load_mixture(mixture)
    plain, watched = (
        make_config(steps=12, checkpoint_every=4, out=mixture.parent / name, **options)
        for name, options in (
            ("plain", {"update_ratio_every": 0}),
            ("watched", {"validate": held_out, "validate_every": 3, "validate_tokens": 300, "update_ratio_every": 2}),
        )
    )
    listener = Listener()
    train(plain, manifest, SilentWatcher())
    train(watched, manifest, listener)
    metrics = [pl.read_parquet(config.out / "metrics/*.parquet") for config in (plain, watched)]
    assert metrics[0].equals(metrics[1])
    steps = [pl.read_parquet(config.out / "steps/*.parquet").sort("step") for config in (plain, watched)]
    same = ["step", "loss", "weighted_loss", "gradient_norm", "learning_rate"]
    assert steps[0].select(same).equals(steps[1].select(same))
    for name in ("model", "optimizer"):
        files = [config.out / f"checkpoints/step-00000012/{name}.safetensors" for config in (plain, watched)]
        assert sha256_file(files[0]) == sha256_file(files[1])
    # and all that was asked for is there
    assert [heard for heard in listener.heard if heard.startswith("validated")] == [
        f"validated {step}" for step in (0, 3, 6, 9, 12)
    ]
    assert listener.heard.index("validated 3") == listener.heard.index("step 3") + 1
    table = pl.read_parquet(watched.out / "validation/*.parquet")
    assert table["step"].unique().sort().to_list() == [0, 3, 6, 9, 12]
    measured = steps[1].drop_nulls("update_ratio")
    assert measured["step"].to_list() == [1, 2, 4, 6, 8, 10, 12]
    assert ((measured["update_ratio"] > 0) & (measured["update_ratio"] < 1)).all()
    assert steps[0]["update_ratio"].null_count() == 12 and steps[0]["mfu"].null_count() == 12
    assert (steps[1]["peak_memory_bytes"] > 0).all()
    last = table.filter(pl.col("step") == 12)
    model = load_model(watched.out, load_mixture(held_out), held_out, CPU)
    expected = score(model, MixtureRows(load_mixture(held_out), held_out, 64, "best-fit"), 300, CPU)
    for row, found in zip(last.iter_rows(named=True), expected, strict=True):
        assert row["loss"] == found.loss and row["tokens"] == found.row_tokens.sum()
        assert (row["perplexity"], row["bits_per_byte"]) == (found.perplexity, found.bits_per_byte)
    scores = {
        int(state.parent.name.removeprefix("step-")): json.loads(state.read_text())["score"]
        for state in (watched.out / "checkpoints").glob("step-*/state.json")
    }
    assert scores == {8: None, 12: pytest.approx(last["loss"].mean())}


def test_a_stopped_run_goes_on_with_the_same_held_out_losses(
    make_config: MakeConfig, mixture: Path, held_out: Path
) -> None:
    manifest = load_mixture(mixture)
    options = {"steps": 8, "checkpoint_every": 4, "validate": held_out, "validate_every": 2, "validate_tokens": 100}
    unbroken, stopped = (make_config(out=mixture.parent / name, **options) for name in ("unbroken", "stopped"))
    train(unbroken, manifest, SilentWatcher())
    for step in (5, 6):  # at 6 a validation is due, but a run that is told to stop saves without it
        train(stopped, manifest, Stopping(step))
    train(stopped, manifest, SilentWatcher())
    expected, found = (pl.read_parquet(config.out / "validation/*.parquet") for config in (unbroken, stopped))
    assert expected["step"].unique().sort().to_list() == [0, 2, 4, 6, 8]
    assert found.equals(expected.filter(pl.col("step") != 6))


class Stopping(SilentWatcher):
    def __init__(self, at: int) -> None:
        self.at = at

    def step(self, record: StepRecord) -> None:
        if record.step == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


def test_the_best_checkpoint_stays(
    make_config: MakeConfig, mixture: Path, held_out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([9.0, 3.0, 1.0, float("nan"), 4.0])  # of steps 0, 2, 4, 6, 8
    real = Validation.run

    def run(self: Validation, model: nn.Module, step: int) -> ValidationRecord:
        monkeypatch.setattr(ValidationRecord, "mean_loss", next(losses))
        return real(self, model, step)

    monkeypatch.setattr(Validation, "run", run)
    config = make_config(steps=8, checkpoint_every=2, keep_checkpoints=1, validate=held_out, validate_tokens=100)
    train(config, load_mixture(mixture), SilentWatcher())
    assert sorted(path.name for path in (config.out / "checkpoints").glob("step-*")) == [
        "step-00000004",
        "step-00000008",
    ]


def test_packs_that_are_trained_on_are_named(
    make_config: MakeConfig, mixture: Path, write_held_out: WriteHeldOut, texts: dict[str, list[str]]
) -> None:
    half = len(texts["code"]) // 2
    mixed = write_held_out(rules=texts["code"][:half], verse=["roses are red " * 30])  # a shard of the pack `code`
    config = make_config(steps=1, validate=mixed, validate_tokens=64)
    listener = Listener()
    train(config, load_mixture(mixture), listener)
    (warning,) = [heard for heard in listener.heard if "--validate" in heard]
    assert warning.startswith(f"note: --validate {mixed}: packs of rules are trained on, too; their held-out loss")


def test_packs_that_cannot_be_scored(
    mixture: Path, write_held_out: WriteHeldOut, texts: dict[str, list[str]], tmp_path: Path
) -> None:
    other = write_held_out("other", "c" * 64, prose=texts["prose"][:2])
    with pytest.raises(ConfigError, match=rf"--validate {other}: its packs were made with the tokenizer {'c' * 64}, "):
        opened(other, mixture)
    small = write_held_out("small", prose=[""])
    with pytest.raises(FormatError, match=rf"--validate {small}: domain 'prose' has no token that counts as a label"):
        opened(small, mixture)
    assert opened(write_held_out("short", prose=["short"]), mixture).rows.num_rows == [1]  # filled up
    altered = write_held_out("altered", prose=texts["prose"][:2])
    tokens = tmp_path / "altered/prose/00000.bin"
    tokens.write_bytes(b"\x41\x00" + tokens.read_bytes()[2:])
    with pytest.raises(FormatError, match=rf"--validate {altered}: .*00000.bin was altered"):
        opened(altered, mixture)
    assert opened(altered, mixture, verify=False).rows.names == ["prose"]
    with pytest.raises(FormatError, match="cannot read mixture manifest"):
        opened(tmp_path / "none.json", mixture)
