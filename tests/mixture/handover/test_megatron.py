"""Megatron-LM's arguments, parsed as it parses them."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

import pytest

from dataeng.formats.pack import read_idx
from dataeng.mixture.handover.blend import Blend
from dataeng.mixture.handover.megatron import hand_over


def parsed(text: str) -> argparse.Namespace:
    """Parses with the options of ``megatron/training/arguments.py``; lines are of one command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-path", nargs="*", default=None, action="append")
    for name in ("--seq-length", "--global-batch-size", "--train-samples"):
        parser.add_argument(name, type=int)
    parser.add_argument("--phase-transition-iterations", type=str)
    parser.add_argument("--split", type=str)
    words = shlex.split("\n".join(line for line in text.splitlines() if not line.startswith("#")))
    return parser.parse_args(words)


def blends(paths: list[str]) -> dict[str, float]:
    """``get_blend_from_list`` of ``megatron/core/datasets/utils.py``: pairs of weight and prefix, normalized."""
    pairs = list(zip(paths[::2], paths[1::2], strict=True))
    total = sum(float(weight) for weight, _ in pairs)
    return {prefix: float(weight) / total for weight, prefix in pairs}


def test_phases_and_shards(staged: Blend, tmp_path: Path) -> None:
    text = hand_over(staged, None)
    arguments = parsed(text)
    assert (arguments.seq_length, arguments.global_batch_size, arguments.train_samples) == (10, 8, 160)
    assert arguments.phase_transition_iterations == "15" and arguments.split == "100,0,0"
    first, last = map(blends, arguments.data_path)
    packs = tmp_path / "packs"
    # The web's half is split among its shards by their tokens, 300 and 100.
    assert first == pytest.approx(
        {f"{packs}/code/00000": 0.5, f"{packs}/web 1/00000": 0.375, f"{packs}/web2/00000": 0.125}
    )
    assert last == pytest.approx({f"{packs}/code/00000": 0.25, f"{packs}/qa/00000": 0.75})
    for prefix in (*first, *last):
        lengths, _ = read_idx(Path(f"{prefix}.idx"))
        assert lengths.sum() * 2 == Path(f"{prefix}.bin").stat().st_size
    assert "reads no loss masks: every token of web becomes a label" in text
    assert "# curricula are not handed over: qa will be shuffled." in text


def test_exported_prefixes(staged: Blend, tmp_path: Path) -> None:
    first, _ = map(blends, parsed(hand_over(staged, tmp_path / "out")).data_path)
    assert first == {f"{tmp_path}/out/code/code": 0.5, f"{tmp_path}/out/web/web": 0.5}
