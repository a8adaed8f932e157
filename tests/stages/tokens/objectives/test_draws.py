"""Numbers of documents: reproducible, independent of the batch, and spread evenly."""

from __future__ import annotations

import numpy as np
import polars as pl

from dataeng.stages.tokens.objectives.draws import document_keys, uniform


def test_a_number_depends_on_seed_id_and_purpose_alone() -> None:
    ids = pl.Series(["a", "b", "a"])
    keys = document_keys(ids, 0, "fim")
    assert keys.dtype == np.uint64 and keys[0] == keys[2] != keys[1]
    assert document_keys(ids[1:2], 0, "fim").tolist() == keys[1:2].tolist()
    assert document_keys(ids, 1, "fim")[0] != keys[0] != document_keys(ids, 0, "masked_lm")[0]
    assert len(document_keys(ids[:0], 0, "fim")) == 0


def test_numbers_are_the_mixed_sequence() -> None:
    state, mask = 0x1234567890ABCDEF, (1 << 64) - 1
    for index in range(4):
        x = (state + (index + 1) * 0x9E3779B97F4A7C15) & mask
        x = (x ^ (x >> 33)) * 0xFF51AFD7ED558CCD & mask
        x = (x ^ (x >> 33)) * 0xC4CEB9FE1A85EC53 & mask
        expected = ((x ^ (x >> 33)) >> 11) / 2**53
        assert uniform(np.array([state], np.uint64), index).tolist() == [expected]


def test_numbers_are_uniform_and_unrelated() -> None:
    keys = document_keys(pl.Series([str(i) for i in range(20_000)]), 7, "fim")
    drawn = np.stack([uniform(keys, index) for index in range(4)])
    assert drawn.min() >= 0 and drawn.max() < 1
    counts = np.stack([np.histogram(row, 10, (0, 1))[0] for row in drawn])
    assert (abs(counts - 2000) < 200).all()  # 4.7 standard deviations
    assert (abs(np.corrcoef(drawn) - np.eye(4)) < 0.03).all()
