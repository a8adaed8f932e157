from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.mixture.power_law import LARGEST_EXPONENT, fit_power_law


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 5), st.floats(0.2, 10), st.floats(0.05, 0.75))
def test_an_exact_law_is_found_again(irreducible: float, scale: float, exponent: float) -> None:
    n = np.arange(10.0, 3000, 10)
    law = fit_power_law(n, irreducible + scale * n**-exponent)
    assert law is not None
    assert law.exponent == pytest.approx(exponent, abs=0.02)
    assert [law.at(x) for x in (10, 500, 5000)] == pytest.approx(
        [irreducible + scale * x**-exponent for x in (10, 500, 5000)], rel=0.01, abs=0.005
    )


def test_outliers_hardly_move_it() -> None:
    n = np.arange(10.0, 3000, 10)
    losses = 1.5 + 3 * n**-0.4
    losses[::20] += 2.0
    law = fit_power_law(n, losses)
    assert law is not None and law.at(5000) == pytest.approx(1.5 + 3 * 5000**-0.4, abs=0.02)


def test_few_points_rising_and_flat_losses() -> None:
    n = np.arange(10.0, 200, 10)
    assert fit_power_law(n[:3], n[:3]) is None
    for losses in (np.full(len(n), 2.0), 2 + n / 1000):
        law = fit_power_law(n, losses)
        assert law is not None and law.scale == 0 and 2 <= law.irreducible <= losses.max()
        assert 0 < law.exponent <= LARGEST_EXPONENT
