"""A mixture of two stages to hand over."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataeng.formats.mixture import Order, Policy, save_mixture
from dataeng.mixture.build import build_mixture
from dataeng.mixture.handover.blend import Blend, blend
from dataeng.mixture.weighting import WantedStage
from tests.small_packs import write_pack

STAGES = [
    WantedStage("balanced", 0.75, Policy(name="given"), {"code": 0.5, "web": 0.5}),
    WantedStage("the last", 1.0, Policy(name="given"), {"code": 0.25, "qa": 0.75}),
]


@pytest.fixture
def staged(tmp_path: Path) -> Blend:
    """1,600 tokens: 20 steps of 8 rows of 10; the web of two packs, one of them masked; qa in the order of a column."""
    folders = [
        write_pack(tmp_path, "code", [400, 400]),
        write_pack(tmp_path, "qa", [500], docs={"score": [1.0]}),
        write_pack(tmp_path, "web 1", [300], "web"),
        write_pack(tmp_path, "web2", [60, 40], "web", masked=True),
    ]
    path = tmp_path / "mix.json"
    orders = {"qa": Order(by="score")}
    manifest = build_mixture(
        folders, path, policy=Policy(name="given"), schedule=STAGES, orders=orders, packing="best-fit"
    )
    save_mixture(path, manifest)
    return blend(manifest, path, 1_600, 10, 8)
