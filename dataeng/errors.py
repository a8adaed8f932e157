"""Every error that a user can meet, in one place.

    DataengError
    ├── ConfigError    a pipeline file, preset or command-line override is wrong
    ├── PlanError      the pipeline is well formed but cannot run as written
    ├── InputError     an input is missing or is not what it claims to be
    ├── FormatError    a pack, manifest or committed file is damaged or does not fit
    ├── LeaseError     another run holds the run folder
    ├── TaskError      a task failed; the others were finished
    └── LedgerError    documents in != documents kept + documents dropped: a bug, never ignored

Each message says what was found, what was expected, where, and what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DataengError(Exception):
    """Base of all errors that the command line shows without a traceback."""


class ConfigError(DataengError):
    """A pipeline file, a preset or an override is wrong."""

    def __init__(self, message: str, option: str = "") -> None:
        super().__init__(message)
        self.option = option
        """The stage's option that is wrong (``presets.0``, ``set.gopher.min_words``), where it is known."""


class PlanError(DataengError):
    """A well-formed pipeline that cannot run: a missing column, an artifact nobody makes, no input."""


class InputError(DataengError):
    """An input file is missing, unreadable or not of the stated format."""


class FormatError(DataengError):
    """A pack, a mixture manifest or a committed shard is damaged or belongs to something else."""


class LeaseError(DataengError):
    """The run folder is held by another live process."""


class TaskError(DataengError):
    """One or more tasks failed for good; every other task was finished and committed."""


class LedgerError(DataengError):
    """The books do not balance: documents were lost or invented. Always a bug of ours or of a stage."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns ``"; did you mean 'x'?"`` for the closest of ``known``, or the sorted list when nothing is close."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if not close and len(name) >= 4:
        close = [known_name for known_name in names if name in known_name][:1]
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(names)}" if names else ""
