"""What a run says of itself, at its start and in training.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dataeng.formats.mixture import load_mixture, save_mixture
from trainer.config import TrainConfig
from trainer.loop import train
from trainer.watching.progress import SilentWatcher

MakeConfig = Callable[..., TrainConfig]


class Notes(SilentWatcher):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_a_run_says_what_it_is_and_which_domains_are_rare(make_config: MakeConfig, mixture: Path) -> None:
    manifest = load_mixture(mixture)
    shares = {"code": 0.55, "prose": 0.41, "tables": 0.04}
    rare = {name: domain.model_copy(update={"weight": shares[name]}) for name, domain in manifest.domains.items()}
    save_mixture(mixture, manifest.model_copy(update={"domains": rare}))
    config, watcher = make_config(steps=2, peak_flops=1e12), Notes()
    train(config, load_mixture(mixture), watcher)
    first, warning = watcher.notes[-2:]
    assert first.startswith(
        "tiny: 820,480 parameters on the CPU; 2 steps of 4 rows of 64 tokens, 512 in all, from 3 domains; run: "
    )
    assert "tables in 1 of 7 (drawn at random: 15%). --batch-size 26 would" in warning and "code in" not in warning
    told = json.loads((config.out / "training.json").read_text())
    assert (told["hardware"], told["peak_flops"]) == ("the CPU", 1e12)
    assert told["flops_per_token"] == pytest.approx(6 * 819_200 + 6 * 4 * 64 * 128, rel=0.001)
    tables = told["presence"][2]
    assert (tables["domain"], tables["planned"]) == ("tables", pytest.approx(0.16, rel=0.05))
    assert tables["random"] == pytest.approx(1 - 0.96**4, rel=0.05)
