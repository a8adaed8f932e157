"""The manifest that a run writes back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dataeng.formats.mixture import MixtureStage, load_mixture
from trainer.config import TrainConfig
from trainer.data.rows import MixtureRows
from trainer.steering.learned import learned_manifest, save_learned_mixture
from trainer.watching.metrics import DomainSummary

MakeConfig = Callable[..., TrainConfig]


def summaries(last: dict[str, float | None]) -> list[DomainSummary]:
    return [
        DomainSummary(domain=name, first_loss=5.0, last_loss=loss, weight=0.1, share=0.1, epochs=1.0)
        for name, loss in last.items()
    ]


def test_weights_history_and_paths(make_config: MakeConfig, mixture: Path, tmp_path: Path) -> None:
    config = make_config(out=tmp_path / "out", save_mixture=tmp_path / "far" / "away" / "learned.json")
    before = load_mixture(mixture)
    losses = {"code": 1.5, "prose": 2.5, "tables": None}
    save_learned_mixture(config, before, np.array([0.2, 0.3, 0.5]), summaries(losses))
    after = load_mixture(config.save_mixture)
    assert [domain.weight for domain in after.domains.values()] == pytest.approx([0.2, 0.3, 0.5])
    assert (after.policy.name, after.run) == ("learned", "../../run")
    assert after.domains["code"].packs == ["../../run/packs/code"]
    (entry,) = after.history
    assert (entry.run, entry.step, entry.losses) == ("../../out", 60, {"code": 1.5, "prose": 2.5})
    assert entry.weights == pytest.approx({"code": 0.2, "prose": 0.3, "tables": 0.5})
    opened = MixtureRows(after, config.save_mixture, 64)
    assert opened.num_rows == MixtureRows(before, mixture, 64).num_rows
    again = learned_manifest(config, after, np.array([0.2, 0.3, 0.5]), summaries(losses))
    assert len(again.history) == 2


def test_without_reweighting_the_weights_stay(make_config: MakeConfig, mixture: Path) -> None:
    before = load_mixture(mixture)
    after = learned_manifest(make_config(reweighting="none"), before, np.array([0.2, 0.3, 0.5]), summaries({}))
    assert after.policy == before.policy
    assert [d.weight for d in after.domains.values()] == [d.weight for d in before.domains.values()]
    assert len(after.history) == 1


def test_a_weight_of_zero_stays_writable(make_config: MakeConfig, mixture: Path) -> None:
    config = make_config()
    save_learned_mixture(config, load_mixture(mixture), np.array([0.0, 0.0, 1.0]), summaries({}))
    weights = [domain.weight for domain in load_mixture(config.save_mixture).domains.values()]
    assert weights == pytest.approx([0, 0, 1], abs=3e-6)
    assert min(weights) > 0


def test_stages_are_scaled_by_what_was_learned(make_config: MakeConfig, mixture: Path) -> None:
    before = load_mixture(mixture)
    stages = [
        MixtureStage(name="first", until=0.5, weights={"code": 0.5, "prose": 0.5, "tables": 0}),
        MixtureStage(name="last", until=1, weights={"code": 0.5, "prose": 0, "tables": 0.5}),
    ]
    staged = before.model_copy(update={"schedule": stages})
    config = make_config()
    # The stages' means are 1/2, 1/4, 1/4: code was learned to be worth half of that, the others one and a half times.
    save_learned_mixture(config, staged, np.array([0.25, 0.375, 0.375]), summaries({}))
    after = load_mixture(config.save_mixture)
    assert [stage.weights for stage in after.schedule] == [
        pytest.approx({"code": 0.25, "prose": 0.75, "tables": 0}),
        pytest.approx({"code": 0.25, "prose": 0, "tables": 0.75}),
    ]
    assert [d.weight for d in after.domains.values()] == pytest.approx([0.25, 0.375, 0.375])
    kept = learned_manifest(make_config(reweighting="none"), staged, np.array([0.25, 0.375, 0.375]), summaries({}))
    assert kept.schedule == stages
