"""Bands and rows for locality-sensitive hashing: named parameter sets, and datasketch's choice for a threshold.

Two sets of Jaccard similarity s share a band with probability 1 - (1 - s^rows)^bands (Leskovec, Rajaraman and Ullman,
*Mining of Massive Datasets*, 3.4.2). Plain data and numpy: nothing here is compiled.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

#: Gauss-Legendre nodes: n integrate polynomials of degree 2n - 1 exactly, and 512 any others to rounding.
MAX_NODES = 512


class LshParameters(NamedTuple):
    bands: int
    rows: int
    num_perm: int  # drawn; the last ones are unused where bands * rows is less
    ngram: int
    unit: str  # "words" or "characters"
    normalization: str  # see `dataeng.kernels.folding`
    source: str

    def probability(self, similarity: float) -> float:
        """Returns how likely two sets of this Jaccard similarity become candidates."""
        return float(1 - (1 - similarity**self.rows) ** self.bands)

    @property
    def threshold(self) -> float:
        """The similarity near which the probability rises most steeply, ``(1 / bands) ** (1 / rows)``."""
        return float((1 / self.bands) ** (1 / self.rows))


PARAMETER_SETS = {
    "fineweb": LshParameters(
        14, 8, 112, 5, "words", "simplified",
        "Penedo et al. (2024), The FineWeb Datasets, 3.4; datatrove's MinhashConfig, examples/fineweb.py",
    ),
    "refinedweb": LshParameters(
        450, 20, 9000, 5, "words", "simplified",
        "Penedo et al. (2023), The RefinedWeb Dataset, appendix G.3.1, after Lee et al. (2022), Deduplicating Training "
        "Data Makes Language Models Better; RefinedWeb's 5-grams are of GPT-2 tokens, here of words",
    ),
    "bigcode": LshParameters(
        25, 10, 256, 5, "words", "code",
        "github.com/bigcode-project/bigcode-dataset, near_deduplication/minhash_deduplication.py: threshold 0.7 and "
        "256 permutations, for which datasketch's choice is 25 x 10",
    ),
}  # fmt: skip


def datasketch_parameters(
    threshold: float, num_perm: int = 128, weights: tuple[float, float] = (0.5, 0.5)
) -> tuple[int, int]:
    """Returns the bands and rows that ``datasketch.MinHashLSH(threshold, num_perm, weights)`` would use.

    As its ``_optimal_param``: of all bands and rows with ``bands * rows <= num_perm``, those with the least weighted
    sum of the false positives' probability, integrated from 0 to the threshold, and the false negatives',
    from there to 1. The integrals are polynomials', so Gauss-Legendre quadrature is exact
    where datasketch's adaptive one is near.

    Raises:
      ValueError: an argument is outside its range, or the best is a single band (datasketch refuses that, too).
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be 0 to 1, got {threshold}")
    if num_perm < 2:
        raise ValueError(f"num_perm must be at least 2, got {num_perm}")
    if min(weights) < 0 or sum(weights) != 1:
        raise ValueError(f"weights must be two numbers of at least 0 whose sum is 1, got {weights}")
    nodes, node_weights = np.polynomial.legendre.leggauss(min(num_perm // 2 + 1, MAX_NODES))
    below = (nodes + 1) / 2 * threshold  # [nodes]
    above = threshold + (nodes + 1) / 2 * (1 - threshold)
    below_weights, above_weights = node_weights / 2 * threshold, node_weights / 2 * (1 - threshold)
    least, best = float("inf"), (0, 0)
    log_below, log_above = np.log(below, where=below > 0, out=np.full_like(below, -np.inf)), np.log(above)
    for bands in range(1, num_perm + 1):
        rows = np.arange(1, num_perm // bands + 1)[:, None]
        false_positives = (1 - (1 - np.exp(rows * log_below)) ** bands) @ below_weights
        # Not shortened: where datasketch's own expression is rounded to 0, the first of several zeros is its choice.
        false_negatives = (1 - (1 - (1 - np.exp(rows * log_above)) ** bands)) @ above_weights
        errors = weights[0] * false_positives + weights[1] * false_negatives
        lowest = int(np.argmin(errors))
        if errors[lowest] < least:
            least, best = float(errors[lowest]), (bands, lowest + 1)
    if best[0] < 2:
        raise ValueError(f"threshold {threshold} leaves a single band of {num_perm} permutations; take a lower one")
    return best
