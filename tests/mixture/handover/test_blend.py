"""Stages in steps, and shares after epoch caps."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataeng.errors import ConfigError
from dataeng.mixture.handover.blend import Blend, BlendStage, blend


def test_stages_in_steps(staged: Blend) -> None:
    assert staged.num_steps == 20
    assert staged.stages == [
        BlendStage("balanced", 1, 15, 0.75, {"code": 0.5, "web": 0.5}),
        BlendStage("the last", 16, 20, 1.0, {"code": 0.25, "qa": 0.75}),
    ]


def test_what_is_not_handed_over_is_said(staged: Blend) -> None:
    assert staged.masked_domains() == ["web"]
    assert staged.caveats() == [
        "curricula are not handed over: qa will be shuffled",
        "the manifest's packing, best-fit, is not handed over",
    ]


def test_epoch_caps_are_in_the_shares(staged: Blend, tmp_path: Path) -> None:
    web = staged.manifest.domains["web"].model_copy(update={"max_epochs": 0.5})
    capped = staged.manifest.model_copy(update={"domains": staged.manifest.domains | {"web": web}})
    first = blend(capped, tmp_path / "mix.json", 1_600, 10, 8).stages[0]
    assert first.shares == pytest.approx({"code": 5 / 6, "web": 1 / 6})  # 200 of the stage's 1,200 tokens


@pytest.mark.parametrize(
    ("tokens", "length", "batch", "message"),
    [
        (1_600, 0, 8, "--sequence-length is 0"),
        (1_600, 10, 0, "--batch-size is 0"),
        (100, 10, 8, "100 tokens are 1 steps of 8 rows of 10: stage 'the last' has none. Give more --tokens"),
        (0, 10, 8, "token budget is 0"),
    ],
)
def test_budgets_too_small(staged: Blend, tmp_path: Path, tokens: int, length: int, batch: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        blend(staged.manifest, tmp_path / "mix.json", tokens, length, batch)
