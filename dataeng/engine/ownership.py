"""Whose folder is it: a run writes into an empty folder, or into one that already holds a run of the same pipeline."""

from __future__ import annotations

from pathlib import Path

from dataeng.errors import ConfigError
from dataeng.formats.atomic import read_json

OUR_OWN = ("lease.json", ".lease.lock")
"""What may be in a folder before a run has written its ``run.json``."""


def check_ownership(run_dir: Path, pipeline: Path, replace: bool = False) -> None:
    """Refuses to write where something else lives.

    Args:
      pipeline: the pipeline file of the run that is to start.
      replace: allow to replace the run of another pipeline.

    Raises:
      ConfigError: the folder is not empty and holds no run, or the run of another pipeline file that still exists.
    """
    if run_dir.exists() and not run_dir.is_dir():
        raise ConfigError(f"{run_dir} is a file; a run needs a folder (--set run=…).")
    if not run_dir.exists():
        return
    try:
        holder = Path(read_json(run_dir / "run.json")["pipeline"]["file"])
    except FileNotFoundError:
        strangers = sorted(path.name for path in run_dir.iterdir() if path.name not in OUR_OWN)
        strangers = [name for name in strangers if not name.startswith(".lease.")]
        if strangers:
            raise ConfigError(
                f"{run_dir} is not a run folder, and not empty ({', '.join(strangers[:3])}…): a run removes what it "
                "does not know. Choose another folder with --set run=…, or empty this one."
            ) from None
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        if replace:
            return
        raise ConfigError(f"{run_dir / 'run.json'} is damaged; --replace starts over in this folder.") from error
    if not replace and holder.exists() and holder.resolve() != pipeline.resolve():
        raise ConfigError(
            f"{run_dir} holds the run of {holder}, which this one would replace. Give the pipeline another name, "
            "choose another folder with --set run=…, or add --replace."
        )
