"""How sure a difference between two runs is: paired bootstrap interval and sign-flip permutation test, of one or of many.

    interval = paired_bootstrap(this_round["recall@10"], baseline["recall@10"])
    p = paired_permutation_p(this_round["recall@10"], baseline["recall@10"])
    found = compare(this_round, baseline, alone=["recall@3"])     # every metric, corrected for their number

Higher is better here; for a metric where lower is better (`bad_top1`) swap the two arguments.

Shape suffixes: Q queries, D distinct differences, B resamples of one block, M differences tested together.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Key = TypeVar("Key", bound=Hashable)

# Random draws held at once: 8 MiB of int64, small enough to stay near the caches.
_BLOCK_DRAWS = 1 << 20
# Drawing the count of one distinct value costs about as much as drawing this many queries one by one (measured).
_DRAWS_PER_COUNT = 32


@dataclass(frozen=True)
class Interval:
    """Mean difference over `queries` pairs and its confidence interval, `low` to `high`, in units of the metric."""

    mean: float
    low: float
    high: float
    queries: int


@dataclass(frozen=True)
class Comparison:
    """A difference, its interval, and whether it counts."""

    interval: Interval
    p: float
    """Of the paired permutation test, two-sided."""
    p_adjusted: float
    """After Holm's correction for the number of differences tested together."""
    significant: bool
    """`p_adjusted` is at most 1 − confidence, and the interval does not hold 0: nothing else is a basis for a verdict."""

    def as_json(self) -> dict[str, Any]:
        """As evaluation.json has it."""
        return asdict(self.interval) | {"p": self.p, "p_adjusted": self.p_adjusted, "significant": self.significant}


def compare(
    values: Mapping[Key, F64],
    baseline: Mapping[Key, F64],
    *,
    alone: Collection[Key] = (),
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[Key, Comparison]:
    """Interval and p of every difference that both sides have, corrected for the number of them.

    Args:
        values: float64 [Q] for each metric (or slice, or both); Q may differ from key to key. NaN drops a pair.
        baseline: the same queries in the same order. What only one side has is left out.
        alone: keys that were named before anything was measured: each is tested by itself, so its adjusted p is its p.
            The rest is one family.
        resamples: bootstrap samples and sign flips. A family of more than resamples · (1 − confidence) differences can
            have no significant one.

    Returns:
        In the order of `values`; the same for the same values and seed.

    Raises:
        ValueError: as `paired_bootstrap`.
    """
    keys = [key for key in values if key in baseline]
    p = {key: paired_permutation_p(values[key], baseline[key], resamples=resamples, seed=seed) for key in keys}
    family = [key for key in keys if key not in alone]
    adjusted = p | dict(zip(family, holm([p[key] for key in family]), strict=True))
    found: dict[Key, Comparison] = {}
    for key in keys:
        interval = paired_bootstrap(values[key], baseline[key], resamples=resamples, confidence=confidence, seed=seed)
        significant = adjusted[key] <= 1 - confidence and not interval.low <= 0 <= interval.high
        found[key] = Comparison(interval, p[key], adjusted[key], significant)
    return found


def holm(ps_M: Sequence[float]) -> list[float]:
    """Adjusted p of tests made together: whichever are true, one is called false at the level with that chance at most.

    The i-th smallest of M is multiplied by M − i + 1, then made no smaller than those before it (Holm 1979). Valid however
    the tests depend on each other.

    Args:
        ps_M: in any order.

    Returns:
        In the same order, at most 1.
    """
    p_M = np.asarray(ps_M, np.float64)
    order = np.argsort(p_M, kind="stable")
    adjusted_M = np.empty(len(p_M))
    adjusted_M[order] = np.minimum(np.maximum.accumulate(p_M[order] * np.arange(len(p_M), 0, -1)), 1)
    return [float(p) for p in adjusted_M]


def smallest_gain(spread: float, queries: int, *, confidence: float) -> float:
    """The smallest measured mean difference of two models that chance does not explain: half the width of its interval.

    z · s / √Q, the normal interval of a paired mean (Student 1908; for retrieval Sakai 2016, SIGIR). A true gain of just this
    size is measured as one in half of all cases; to be found in four of five it must be 1.43 times as large (power 80 %).

    Args:
        spread: standard deviation of the difference over the queries; 1 / √2 at most for two models that have nothing in
            common, whose figures lie between 0 and 1. queries: with both values, >= 1.
    """
    return NormalDist().inv_cdf((1 + confidence) / 2) * spread / math.sqrt(queries)


def spread_of(interval: Interval, *, confidence: float) -> float:
    """The standard deviation of a difference over its queries, from its interval: `smallest_gain` the other way round."""
    half = (interval.high - interval.low) / 2
    return half * math.sqrt(interval.queries) / NormalDist().inv_cdf((1 + confidence) / 2)


def paired_bootstrap(
    values_Q: F64, baseline_Q: F64, *, resamples: int = 10_000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of the mean of `values - baseline` (Efron 1979; Koehn 2004 for paired runs).

    Queries are drawn with replacement, whole pairs at a time. When differences take few distinct values (`hit@k`), the
    count of each value is drawn instead, from the same distribution. Memory is bounded whatever the number of queries.

    Args:
        values_Q: float64, one value per query; NaN drops the pair.
        baseline_Q: float64, the same queries in the same order; NaN drops the pair.
        resamples: bootstrap samples, >= 1; ends of a 95 % interval want 1,000 and more.
        confidence: share of the bootstrap means inside the interval, between 0 and 1.
        seed: the same seed and values give the same interval.

    Returns:
        Mean and ends of `values - baseline`, and the number of pairs kept.

    Raises:
        ValueError: shapes differ, a value is infinite, no pair is left, or a setting is out of range.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, found {confidence}")
    difference_Q = _differences(values_Q, baseline_Q, resamples)
    means = _bootstrap_sums(difference_Q, resamples, np.random.default_rng(seed)) / len(difference_Q)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(difference_Q.mean()), float(low), float(high), len(difference_Q))


def paired_permutation_p(values_Q: F64, baseline_Q: F64, *, resamples: int = 10_000, seed: int = 0) -> float:
    """Two-sided p of the mean of `values - baseline` under random sign flips (Fisher's randomisation test).

    p = (1 + flips at least as far from 0 as the observed mean) / (1 + resamples), never 0 (Phipson & Smyth 2010). When
    differences take few distinct sizes, the number of flips of each size is drawn instead, from the same distribution.

    Args:
        values_Q: float64, one value per query; NaN drops the pair.
        baseline_Q: float64, the same queries in the same order; NaN drops the pair.
        resamples: sign flips of all queries, >= 1.
        seed: the same seed and values give the same p.

    Returns:
        p in 1 / (1 + resamples) .. 1; exactly 1 for equal values.

    Raises:
        ValueError: shapes differ, a value is infinite, no pair is left, or `resamples` is below 1.
    """
    difference_Q = _differences(values_Q, baseline_Q, resamples)
    # A flip of 0 changes nothing, and the sign of a difference is drawn anyway: only sizes above 0 count.
    size_Q = np.abs(difference_Q[difference_Q != 0])
    sums = _sign_flip_sums(size_Q, resamples, np.random.default_rng(seed))
    # Sums equal on paper differ in the last digits by order of addition; they are ties, not "less far".
    rounding = 1e-12 * size_Q.sum()
    as_far = np.count_nonzero(np.abs(sums) >= abs(difference_Q.sum()) - rounding)
    return float((1 + as_far) / (1 + resamples))


def _differences(values_Q: F64, baseline_Q: F64, resamples: int) -> F64:
    values_Q, baseline_Q = np.asarray(values_Q, dtype=np.float64), np.asarray(baseline_Q, dtype=np.float64)
    if values_Q.ndim != 1 or values_Q.shape != baseline_Q.shape:
        shapes = f"{values_Q.shape} and {baseline_Q.shape}"
        raise ValueError(f"values and baseline must each hold one value per query, found shapes {shapes}")
    if np.isinf(values_Q).any() or np.isinf(baseline_Q).any():
        raise ValueError("values and baseline must be finite or NaN, found an infinite value")
    if resamples < 1:
        raise ValueError(f"resamples must be >= 1, found {resamples}")
    difference_Q = values_Q - baseline_Q
    difference_Q = difference_Q[~np.isnan(difference_Q)]
    if not len(difference_Q):
        raise ValueError(f"at least one query must have both values, found none among {len(values_Q)}")
    return difference_Q


def _blocks(resamples: int, draws_each: int) -> list[int]:
    """Split the resamples so that each block needs at most `_BLOCK_DRAWS` draws (or is one resample)."""
    step = max(_BLOCK_DRAWS // max(draws_each, 1), 1)
    return [min(step, resamples - start) for start in range(0, resamples, step)]


def _bootstrap_sums(difference_Q: F64, resamples: int, rng: np.random.Generator) -> F64:
    """[resamples] sums of Q differences drawn with replacement."""
    num_queries = len(difference_Q)
    value_D, count_D = np.unique(difference_Q, return_counts=True)
    if len(value_D) * _DRAWS_PER_COUNT <= num_queries:
        share_D = count_D / num_queries
        parts = [rng.multinomial(num_queries, share_D, size=b) @ value_D for b in _blocks(resamples, len(value_D))]
    else:
        parts = [
            difference_Q[rng.integers(num_queries, size=(b, num_queries))].sum(axis=1) for b in _blocks(resamples, num_queries)
        ]
    return np.concatenate(parts)


def _sign_flip_sums(size_Q: F64, resamples: int, rng: np.random.Generator) -> F64:
    """[resamples] sums of the sizes, each under a fair random sign."""
    value_D, count_D = np.unique(size_Q, return_counts=True)
    if len(value_D) * _DRAWS_PER_COUNT <= len(size_Q):
        parts = [rng.binomial(count_D, 0.5, size=(b, len(value_D))) @ value_D for b in _blocks(resamples, len(value_D))]
        sums: F64 = 2 * np.concatenate(parts) - size_Q.sum()
        return sums
    parts = []
    for b in _blocks(resamples, len(size_Q)):
        coins = np.frombuffer(rng.bytes(b * ((len(size_Q) + 7) // 8)), dtype=np.uint8).reshape(b, -1)
        heads_BQ = np.unpackbits(coins, axis=1, count=len(size_Q)).astype(np.float64)
        parts.append(2 * (heads_BQ @ size_Q) - size_Q.sum())
    return np.concatenate(parts)
