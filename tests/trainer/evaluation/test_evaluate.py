"""What ``trainer evaluate`` prints."""

from __future__ import annotations

import io

import numpy as np
from rich.console import Console

from trainer.evaluation.evaluate import Evaluation, print_evaluation
from trainer.evaluation.held_out import DomainScore, compare


def score_of(*row_losses: float) -> DomainScore:
    losses = np.array(row_losses)
    return DomainScore(domain="qa", row_losses=losses, row_tokens=np.full(len(losses), 2.0), bytes_per_token=4.0)


def shown(before: DomainScore, after: DomainScore) -> list[list[str]]:
    console = Console(file=io.StringIO(), width=120)
    changes = compare([before], [after])
    done = Evaluation(scores=[after], changes=changes, continuations=[], continuations_before=[])
    print_evaluation(console, done)
    assert isinstance(console.file, io.StringIO)
    return [line.split() for line in console.file.getvalue().splitlines() if line.startswith("qa")]


def test_of_a_single_row_no_error_and_no_verdict_is_told() -> None:
    assert shown(score_of(6.0), score_of(4.0)) == [
        ["qa", "2.0000", "-", "7.39", "0.7213", "2"],
        ["qa", "3.0000", "2.0000", "-1.0000", "-", "20.09", "7.39", "same"],
    ]


def test_of_several_rows_both_are() -> None:
    found, change = shown(score_of(6.0, 6.2), score_of(4.0, 4.2))
    assert found[2] == "0.0500" and change[3:5] == ["-1.0000", "0.0000"] and change[-1] == "learned"
