"""Paired tests over users: whether one model is better than another beyond the luck of which users were asked.

Everything here takes and returns numbers and arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import wilcoxon

__all__ = ["Paired", "compare_paired", "holm", "mean_and_deviation"]

_DRAWS = 2**22  # at most so many counts are drawn at once (32 MB)


@dataclass
class Paired:
    """Model A against model B on the same users.

    Attributes:
        users: how many.
        mean_a, mean_b: of the metric.
        difference: mean of A - B over users.
        relative: difference / mean of B; nan where that is 0.
        effect: Cohen's d_z, the mean of the differences in units of their own standard deviation. Around 0.2 counts
            as small, 0.5 as medium, 0.8 as large. It says how consistent the difference is over users, and unlike a
            p-value does not grow with their number.
        low, high: bootstrap confidence interval of the difference.
        p_bootstrap, p_wilcoxon: two-sided p-values, of a single test.
    """

    users: int
    mean_a: float
    mean_b: float
    difference: float
    relative: float
    effect: float
    low: float
    high: float
    p_bootstrap: float
    p_wilcoxon: float


def compare_paired(
    a: np.ndarray, b: np.ndarray, *, resamples: int = 10_000, level: float = 0.95, seed: int = 0
) -> Paired:
    """Compare two metrics of the same users.

    * **Bootstrap** (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 and 16): users are drawn
      with replacement. The interval is the percentile interval of the mean difference. The p-value is the share of
      resamples whose mean lies as far from the observed mean as that lies from 0, (1 + count) / (1 + resamples).
    * **Wilcoxon's signed-rank test** of whether differences are symmetric around 0, by scipy. Differences of exactly 0
      are left out (Wilcoxon's own way). Most users are such ones: neither model reached their item, or both put it at
      the same place, and they say nothing about which is better. Pratt's way lets their number push all ranks
      together, until with nine zeros in ten only signs count; splitting them between both sides counts each as a fair
      coin that was never tossed, which hides differences.

    Swapping A and B changes signs and nothing else.

    Args:
        a, b: metric of each user [N], averaged over seeds and over the user's test rows where there are several.
        resamples: of the bootstrap.
        level: of the confidence interval.
        seed: of the bootstrap.

    Raises:
        ValueError: not two vectors of the same users, or no users.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"Two vectors of the same users are compared, not {a.shape} and {b.shape}.")
    # rounding errors of the means over seeds would make equal users differ
    differences = (a - b).round(12)
    difference, deviation = float(differences.mean()), float(differences.std(ddof=1)) if len(a) > 1 else 0.0
    if differences.any():
        means = bootstrap_means(differences, resamples, seed)
        tail = (1 - level) / 2
        low, high = (float(bound) for bound in np.quantile(means, [tail, 1 - tail]))
        # with a tolerance for rounding errors
        far = np.abs(means - difference) >= abs(difference) * (1 - 1e-9)
        p_bootstrap = float((1 + far.sum()) / (1 + resamples))
        p_wilcoxon = float(wilcoxon(differences[differences != 0]).pvalue)
    else:
        low = high = 0.0
        p_bootstrap = p_wilcoxon = 1.0
    mean_a, mean_b = float(a.mean()), float(b.mean())
    return Paired(
        users=len(a),
        mean_a=mean_a,
        mean_b=mean_b,
        difference=difference,
        relative=difference / mean_b if mean_b else np.nan,
        effect=difference / deviation if deviation else float(np.sign(difference) * np.inf if difference else 0.0),
        low=low,
        high=high,
        p_bootstrap=p_bootstrap,
        p_wilcoxon=p_wilcoxon,
    )


def bootstrap_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Means of samples of N drawn from N values with replacement: [N] -> [resamples].

    Equal values are interchangeable, so only their counts are drawn, which are multinomial: metrics of ranks take few
    values, and users need not be drawn one by one.
    """
    values, counts = np.unique(values, return_counts=True)
    # swapping the two models negates all values, and must negate all means: both cases draw from the same one of
    # the two sets of values
    mirrored = -values[::-1]
    flip = (tuple(mirrored), tuple(counts[::-1])) > (tuple(values), tuple(counts))
    if flip:
        values, counts = mirrored, counts[::-1]
    total, generator = counts.sum(), np.random.default_rng(seed)
    step = max(1, _DRAWS // len(values))
    sizes = [min(step, resamples - start) for start in range(0, resamples, step)]
    means = np.concatenate([generator.multinomial(total, counts / total, size) @ values for size in sizes]) / total
    return -means if flip else means


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's step-down correction (Scandinavian Journal of Statistics, 1979): all tests together err at most as often
    as one.

    The i-th smallest of m p-values is multiplied by m - i + 1, and is at least as large as those before it.

    Args:
        p_values: [m].

    Returns:
        [m], in the same order, at most 1.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = values.argsort(kind="stable")
    factors = np.arange(len(values), 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.maximum.accumulate(values[order] * factors).clip(max=1.0)
    return corrected


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1 below) over seeds; one value has no deviation."""
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None
