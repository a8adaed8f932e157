"""What a budget means, by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from dataeng.errors import ConfigError
from dataeng.formats.mixture import Policy
from dataeng.mixture.build import build_mixture
from dataeng.mixture.plan import mixture_table, stage_tables
from dataeng.mixture.weighting import WantedStage

WritePack = Callable[..., Path]


def test_the_table_of_a_budget(write_pack: WritePack, tmp_path: Path) -> None:
    folders = [write_pack("web", [900]), write_pack("code", [100])]
    policy = Policy(name="temperature", temperature=math.inf)
    built = build_mixture(folders, tmp_path / "mix.json", policy=policy, max_epochs={"code": 2})
    code, web = mixture_table(built, 1000)
    # Half of 1000 would be 5 epochs of code; two are allowed, the web takes the rest.
    assert (code.domain, code.weight, code.share, code.tokens_drawn, code.epochs) == ("code", 0.5, 0.2, 200, 2.0)
    assert (web.domain, web.weight, web.share, web.tokens_drawn) == ("web", 0.5, 0.8, 800)
    assert web.epochs == pytest.approx(800 / 900)
    assert stage_tables(built, 1000) == []
    with pytest.raises(ConfigError, match="token budget is 0"):
        mixture_table(built, 0)


def test_caps_are_about_the_whole_schedule(write_pack: WritePack, tmp_path: Path) -> None:
    folders = [write_pack("web", [900]), write_pack("code", [100])]
    stages = [
        WantedStage("first", 0.5, Policy(name="given"), {"web": 0.5, "code": 0.5}),
        WantedStage("last", 1.0, Policy(name="given"), {"web": 0.5, "code": 0.5}),
    ]
    built = build_mixture(
        folders, tmp_path / "mix.json", policy=Policy(name="given"), schedule=stages, max_epochs={"code": 3}
    )
    # 1000 tokens would take 500 of code, 5 epochs, though no stage alone takes more than 2.5.
    (_, first), (_, last) = stage_tables(built, 1000)
    assert [row.tokens_drawn for row in (*first, *last)] == [150, 350, 150, 350]
    assert [row.epochs for row in first] == pytest.approx([1.5, 350 / 900])
    assert [row.tokens_drawn for row in mixture_table(built, 1000)] == [300, 700]
    web_only = built.model_copy(update={"schedule": [built.schedule[0].model_copy(update={"until": 1.0})]})
    assert [row.tokens_drawn for row in mixture_table(web_only, 600)] == [300, 300]


def test_a_stage_that_the_caps_leave_nothing_is_named(write_pack: WritePack, tmp_path: Path) -> None:
    folders = [write_pack("web", [900]), write_pack("qa", [10])]
    stages = [
        WantedStage("first", 0.9, Policy(name="given"), {"web": 1.0}),
        WantedStage("answers", 1.0, Policy(name="given"), {"qa": 1.0}),
    ]
    built = build_mixture(folders, tmp_path / "mix.json", policy=Policy(name="given"), schedule=stages, max_epochs=4)
    assert [row.tokens_drawn for row in mixture_table(built, 400)] == [40, 360]
    with pytest.raises(ConfigError, match=r"stage 'answers' draws 50 in all, .* allow 40\."):
        mixture_table(built, 500)
