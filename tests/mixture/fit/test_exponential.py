"""The exponential law: known ones are recovered, and its gradient is its own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.mixture.fit.exponential import ExponentialLaw, fit_exponential


def law_of(seed: int, num_domains: int, num_losses: int) -> tuple[ExponentialLaw, np.random.Generator]:
    generator = np.random.default_rng(seed)
    floors = np.log(generator.uniform(1, 2.5, num_losses))
    return ExponentialLaw(floors, generator.normal(-0.5, 1, (num_losses, num_domains))), generator


@pytest.mark.parametrize(("num_domains", "num_runs"), [(2, 8), (4, 30), (8, 60)])
def test_a_law_without_noise_is_recovered(num_domains: int, num_runs: int) -> None:
    law, generator = law_of(num_domains, num_domains, 2)
    weights = generator.dirichlet(np.ones(num_domains), num_runs)
    fitted = fit_exponential(weights, law.predict(weights))
    elsewhere = generator.dirichlet(np.ones(num_domains) * 0.5, 100)
    assert fitted.predict(elsewhere) == pytest.approx(law.predict(elsewhere), abs=2e-3)
    assert fitted.slopes == pytest.approx(law.slopes, abs=0.05)
    assert fitted.log_floors == pytest.approx(law.log_floors, abs=0.02)


def test_noise_is_averaged_away() -> None:
    law, generator = law_of(0, 4, 1)
    weights = generator.dirichlet(np.ones(4), 200)
    noisy = law.predict(weights) + generator.normal(0, 0.02, (200, 1))
    error = fit_exponential(weights, noisy).predict(weights) - law.predict(weights)
    assert np.sqrt(np.mean(error**2)) < 0.02 * np.sqrt(6 * 5 / 200)  # five parameters of 200 runs, with room


def test_a_domain_that_never_varies_does_no_harm() -> None:
    law, generator = law_of(1, 3, 1)
    weights = np.column_stack([generator.dirichlet(np.ones(2), 20) * 0.8, np.full(20, 0.2)])
    fitted = fit_exponential(weights, law.predict(weights))
    assert fitted.predict(weights) == pytest.approx(law.predict(weights), abs=1e-3)
    assert np.isfinite(fitted.slopes).all() and np.abs(fitted.slopes).max() < 20


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 4))
def test_the_gradient_is_the_slope_of_the_prediction(seed: int, num_domains: int, num_losses: int) -> None:
    law, generator = law_of(seed, num_domains, num_losses)
    weights, importance = generator.dirichlet(np.ones(num_domains)), generator.uniform(0.1, 1, num_losses)
    step = 1e-6 * np.eye(num_domains)
    shifted = [(law.predict((weights + s)[None]), law.predict((weights - s)[None])) for s in step]
    numeric = [float((more - less)[0] @ importance) / 2e-6 for more, less in shifted]
    assert law.gradient(weights, importance) == pytest.approx(numeric, rel=1e-4, abs=1e-6)
