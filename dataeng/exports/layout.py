"""What every format's module offers: how one domain is written, and how its reader is pointed at it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dataeng.exports.corpus import Corpus, Domain
from dataeng.exports.output import OutputFolder


@dataclass(frozen=True)
class Options:
    """What the user may choose, besides the format."""

    sequence_length: int | None = None
    """Rows of so many tokens, documents concatenated and cut; None: one row a document."""
    tokenizer_name: str | None = None
    """What readers that load a tokenizer by name are told; None: the copy in the output folder."""


class Job(NamedTuple):
    """One export as the formats see it."""

    corpus: Corpus
    options: Options
    masked: bool
    """Write loss masks."""
    output: Path
    """Where the files will be in the end, absolute."""


@dataclass(frozen=True)
class Format:
    """One entry of the registry.

    ``write`` writes the files of one domain, and returns the number of rows where ``--sequence-length`` asks for some;
    ``finish`` those of the whole export. ``point_at`` returns the lines of
    configuration or code with which the reader finds the export.
    """

    reader: str
    write: Callable[[Job, Domain, OutputFolder], int | None]
    point_at: Callable[[Job], list[str]]
    masks: bool = True
    rows: bool = False
    """``--sequence-length`` gives rows of one length."""
    largest_vocabulary: int | None = None
    too_large: str = ""
    """What to do about a vocabulary that is larger."""
    finish: Callable[[Job, OutputFolder], None] | None = None
