from __future__ import annotations

import pytest
from datasketch import MinHashLSH
from datasketch.lsh import _optimal_param

from dataeng.kernels.lsh_parameters import PARAMETER_SETS, datasketch_parameters


@pytest.mark.parametrize("num_perm", [2, 3, 16, 50, 64, 128, 256])
def test_choice_is_datasketchs(num_perm: int) -> None:
    for threshold in (0.0, 0.05, 0.2, 0.35, 0.5, 0.6, 0.7, 0.72, 0.75, 0.8, 0.85, 0.9, 0.93, 0.97, 0.99, 1.0):
        expected = _optimal_param(threshold, num_perm, 0.5, 0.5)
        if expected[0] < 2:
            with pytest.raises(ValueError, match="leaves a single band"):
                datasketch_parameters(threshold, num_perm)
            with pytest.raises(ValueError, match="bands are too small"):
                MinHashLSH(threshold, num_perm)
        else:
            assert datasketch_parameters(threshold, num_perm) == expected


def test_weights() -> None:
    for weights in ((0.1, 0.9), (0.9, 0.1), (0.4, 0.6), (0.0, 1.0)):
        index = MinHashLSH(0.8, 128, weights=weights)
        assert datasketch_parameters(0.8, 128, weights) == (index.b, index.r)


def test_many_permutations_need_no_more_nodes() -> None:
    """More nodes than `MAX_NODES` would be exact; the choice is the same with two thirds of them."""
    chosen = datasketch_parameters(0.7, 1500)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dataeng.kernels.lsh_parameters.MAX_NODES", 751)
        assert datasketch_parameters(0.7, 1500) == chosen


def test_sets_are_those_of_their_sources() -> None:
    assert {name: (p.bands, p.rows, p.num_perm) for name, p in PARAMETER_SETS.items()} == {
        "fineweb": (14, 8, 112), "refinedweb": (450, 20, 9000), "bigcode": (25, 10, 256),
    }  # fmt: skip
    bigcode = PARAMETER_SETS["bigcode"]
    assert datasketch_parameters(0.7, bigcode.num_perm) == (bigcode.bands, bigcode.rows)
    fineweb = PARAMETER_SETS["fineweb"]
    assert [round(fineweb.probability(s), 2) for s in (0.6, 0.7, 0.8, 0.9)] == [0.21, 0.56, 0.92, 1.0]
    assert round(fineweb.threshold, 3) == 0.719


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match=r"threshold must be 0 to 1, got 1\.1"):
        datasketch_parameters(1.1)
    with pytest.raises(ValueError, match="num_perm must be at least 2, got 1"):
        datasketch_parameters(0.5, 1)
    with pytest.raises(ValueError, match="whose sum is 1"):
        datasketch_parameters(0.5, 128, (0.5, 0.6))
