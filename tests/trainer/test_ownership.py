"""A training run writes into its own folder, never among other things."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dataeng.errors import ConfigError
from dataeng.formats.mixture import load_mixture
from trainer.config import TrainConfig
from trainer.loop import train
from trainer.ownership import check_ownership
from trainer.watching.progress import SilentWatcher

MakeConfig = Callable[..., TrainConfig]


def test_a_folder_with_other_things_is_refused_and_left_as_it_is(make_config: MakeConfig, tmp_path: Path) -> None:
    out = tmp_path / "other"
    checkpoint = out / "checkpoints" / "step-100"  # another trainer's, which this one would have removed
    checkpoint.mkdir(parents=True)
    config = make_config(out=out, steps=1)
    with pytest.raises(ConfigError, match=f"--out {out} is no training run, and not empty: checkpoints. .*{out}/mix"):
        train(config, load_mixture(config.mixture), SilentWatcher())
    assert [path.name for path in out.rglob("*")] == ["checkpoints", "step-100"]
    for name in ("thesis.txt", "a", "b", "c"):
        (out / name).write_text("")
    with pytest.raises(ConfigError, match="not empty: a, b, c and 2 more"):
        check_ownership(config)


def test_a_pipelines_folder_and_a_file_are_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    out = tmp_path / "pipeline"
    out.mkdir()
    (out / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match=f"is the run folder of a pipeline. .* --out {out}/training/mix"):
        check_ownership(make_config(out=out))
    with pytest.raises(ConfigError, match=f"--out {out / 'run.json'} is a file"):
        check_ownership(make_config(out=out / "run.json"))


def test_new_empty_and_own_folders_are_taken(make_config: MakeConfig, mixture: Path, tmp_path: Path) -> None:
    out = tmp_path / "run_2"
    check_ownership(make_config(out=out))
    out.mkdir()
    check_ownership(make_config(out=out))
    # What a killed run left, what the job's scheduler writes, and the manifests of this very run.
    for name in (".lock", ".training.json.1a2b.tmp", "slurm-17.out", "train.log"):
        (out / name).write_text("")
    (out / "tensorboard").mkdir()
    for name in ("train.json", "held_out.json"):
        (out / name).write_bytes(mixture.read_bytes())
    check_ownership(make_config(out=out, mixture=out / "train.json", validate=out / "held_out.json"))
    with pytest.raises(ConfigError, match=r"not empty: held_out.json"):
        check_ownership(make_config(out=out, mixture=out / "train.json"))
    (out / "training.json").write_text("{}")
    check_ownership(make_config(out=out, mixture=out / "train.json"))


def test_the_manifest_that_is_trained_on_is_not_replaced(make_config: MakeConfig, mixture: Path) -> None:
    for options in ({"save_mixture": mixture}, {"out": mixture.parent}):
        with pytest.raises(ConfigError, match="which this run trains on, would be replaced"):
            make_config(**options)
    with pytest.raises(ConfigError, match="is a folder; name a file"):
        make_config(save_mixture=mixture.parent)
