"""``trainer evaluate``: what is measured in which order, and the tables that a person sees."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dataeng.formats.mixture import load_mixture
from trainer.device import choose_device
from trainer.evaluation.continuations import ContinuationScore, score_continuations
from trainer.evaluation.held_out import (
    DomainChange,
    DomainScore,
    compare,
    context_length,
    held_out_rows,
    load_model,
    score,
)
from trainer.huggingface.tokenizer_files import tokenizer_of

DEFAULT_LENGTH = 512  # tokens of a row
VERDICT_STYLES = {"learned": "green", "forgot": "red", "same": ""}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of a model; with an earlier one beside it, ``changes`` are there, and continuations of both."""

    scores: list[DomainScore]
    changes: list[DomainChange] | None
    continuations: list[ContinuationScore]
    continuations_before: list[ContinuationScore]


def evaluate_model(
    model: Path,
    mixture: Path,
    before: Path | None,
    tokens_per_domain: int,
    sequence_length: int | None,
    num_continuations: int,
    device: str | None,
) -> Evaluation:
    """Scores ``model``, and ``before`` on the same rows and prompts, one after the other.

    ``sequence_length`` None: rows of `DEFAULT_LENGTH` tokens, or as long as every model's context allows.

    Raises `DataengError` for models or packs that do not fit together.
    """
    manifest, where = load_mixture(mixture), choose_device(device)
    models = [model] if before is None else [model, before]
    if sequence_length is None:
        sequence_length = min(DEFAULT_LENGTH, *map(context_length, models))
    rows = held_out_rows(manifest, mixture, sequence_length)
    found: list[tuple[list[DomainScore], list[ContinuationScore]]] = []
    for path in models:
        loaded = load_model(path, manifest, mixture, where)
        continued: list[ContinuationScore] = []
        if num_continuations:
            tokenizer = tokenizer_of(manifest, mixture).path
            continued = score_continuations(loaded, rows, tokenizer, num_continuations, where)
        found.append((score(loaded, rows, tokens_per_domain, where), continued))
    return Evaluation(
        scores=found[0][0],
        changes=None if before is None else compare(found[1][0], found[0][0]),
        continuations=found[0][1],
        continuations_before=[] if before is None else found[1][1],
    )


def print_evaluation(console: Console, done: Evaluation) -> None:
    """Prints losses; then changes with a verdict; then scores of continuations."""
    table = _table("domain", "loss", "±", "perplexity", "bits/byte", "tokens")
    for s in done.scores:
        numbers = (f"{s.loss:.4f}", _known(s.standard_error), f"{s.perplexity:.2f}", f"{s.bits_per_byte:.4f}")
        table.add_row(Text(s.domain), *numbers, f"{s.row_tokens.sum():,.0f}")
    console.print(table)
    if done.changes is not None:
        _print_changes(console, done.changes)
    if done.continuations:
        table = _table(
            "domain", "prompts", "BLEU", "ROUGE-L", *(["BLEU before", "ROUGE-L before"] if done.changes else [])
        )
        earlier = {score.domain: score for score in done.continuations_before}
        for c in done.continuations:
            row = [f"{c.num_prompts}", f"{c.bleu:.2f}", f"{c.rouge_l:.2f}"]
            if c.domain in earlier:
                row += [f"{earlier[c.domain].bleu:.2f}", f"{earlier[c.domain].rouge_l:.2f}"]
            table.add_row(Text(c.domain), *row)
        console.print(table)


def _print_changes(console: Console, changes: list[DomainChange]) -> None:
    table = _table("domain", "loss before", "after", "change", "±", "perplexity before", "after", "verdict")
    for c in changes:
        losses = (f"{c.before.loss:.4f}", f"{c.after.loss:.4f}", f"{c.change:+.4f}", _known(c.standard_error))
        perplexities = (f"{c.before.perplexity:.2f}", f"{c.after.perplexity:.2f}")
        table.add_row(Text(c.domain), *losses, *perplexities, Text(c.verdict, VERDICT_STYLES[c.verdict]))
    console.print(table)
    forgotten = [c.domain for c in changes if c.verdict == "forgot"]
    learned = [c.domain for c in changes if c.verdict == "learned"]
    said = f"learned: {', '.join(learned) or 'nothing'}; forgotten: {', '.join(forgotten) or 'nothing'}"
    console.print(f"{said} (changes of more than two standard errors)", markup=False, highlight=False, soft_wrap=True)


def _known(standard_error: float) -> str:
    """Returns the error in four places; of a single row nothing is known."""
    return f"{standard_error:.4f}" if math.isfinite(standard_error) else "-"


def _table(first: str, *columns: str) -> Table:
    table = Table(first, box=None, padding=(0, 2), pad_edge=False, collapse_padding=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table
