"""Whose folder is it: a training run writes into a new or empty folder, or into one that holds a training run."""

from __future__ import annotations

from fnmatch import fnmatch

from dataeng.errors import ConfigError
from dataeng.formats.training_run import DESCRIPTION_NAME, PIPELINE_NAME
from trainer.config import TrainConfig

#: What a run that was killed before it had written its ``training.json`` leaves behind, and where people send what a
#: program prints: none of it is anybody else's work.
HARMLESS = (".lock", ".training.json.*.tmp", "tensorboard", "wandb", "mlruns", "*.log", "*.out", "*.err", "logs")
NAMED = 3


def check_ownership(config: TrainConfig) -> None:
    """Raises `ConfigError` where ``config.out`` is a file, a pipeline's run folder, or holds other things.

    A run removes and replaces files whose names others use, too: ``checkpoints/step-…``, ``metrics/``, ``mix.json``.
    """
    out = config.out
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; a run needs a folder.")
    if not out.is_dir() or (out / DESCRIPTION_NAME).exists():
        return
    if (out / PIPELINE_NAME).exists():
        raise ConfigError(
            f"--out {out} is the run folder of a pipeline. A training run needs one of its own, say --out "
            f"{out / 'training' / config.mixture.stem}."
        )
    read = {config.mixture.resolve(), *([config.validation.mixture.resolve()] if config.validation else [])}
    found = sorted(path.name for path in out.iterdir() if path.resolve() not in read)
    strangers = [name for name in found if not any(fnmatch(name, pattern) for pattern in HARMLESS)]
    if strangers:
        more = f" and {len(strangers) - NAMED} more" if len(strangers) > NAMED else ""
        raise ConfigError(
            f"--out {out} is no training run, and not empty: {', '.join(strangers[:NAMED])}{more}. A run replaces what "
            f"it finds; name a new folder, such as {out / config.mixture.stem}."
        )
