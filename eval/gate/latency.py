"""How much longer one query takes: percentiles of paired times, with intervals. Nothing is timed here.

P pairs: the same query encoded by both models, one right after the other, so that a slow moment of the machine hits both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eval.significance import Interval

F64 = npt.NDArray[np.float64]

_BLOCK_DRAWS = 1 << 20


@dataclass(frozen=True)
class Latency:
    """Milliseconds that encoding one query takes."""

    pairs: int
    model_p50: float
    model_p95: float
    base_p50: float | None
    """Of the off-the-shelf model; None: it is not here to be measured."""
    base_p95: float | None
    added_ms: Interval
    """Median of the model minus that of the off-the-shelf model; `queries` counts pairs."""
    p95_increase: Interval | None
    """95th percentile of the model over that of the off-the-shelf model, minus 1; None: there is none."""


def compare_latency(
    model_ms: F64, base_ms: F64 | None, *, resamples: int = 2_000, confidence: float = 0.95, seed: int = 0
) -> Latency:
    """Percentiles of both, and percentile bootstrap intervals (Efron 1979) over whole pairs of what was added.

    Args:
        model_ms: float64 [P], milliseconds of each query. base_ms: [P] of the same queries under the off-the-shelf model;
            None: it takes no time of its own here, so that all of the model's time is added.
        resamples: bootstrap samples, >= 1. seed: the same seed and values give the same intervals.

    Raises:
        ValueError: no pair, another number of times, or a time that is not finite and above 0.
    """
    times = [np.asarray(model_ms, np.float64), *([] if base_ms is None else [np.asarray(base_ms, np.float64)])]
    for values in times:
        if values.shape != times[0].shape or values.ndim != 1 or not len(values):
            raise ValueError(f"expected one time per query and model, found shapes {[len(one) for one in times]}")
        if not (np.isfinite(values) & (values > 0)).all():
            raise ValueError("times must be finite and above 0")
    p50_M, p95_M = (np.array([np.quantile(values, share) for values in times]) for share in (0.5, 0.95))
    drawn_MRS = _resampled(times, resamples, np.random.default_rng(seed))  # S: the two percentiles
    added = drawn_MRS[0, :, 0] - (drawn_MRS[1, :, 0] if base_ms is not None else 0.0)
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    increase = None
    if base_ms is not None:
        low, high = np.quantile(drawn_MRS[0, :, 1] / drawn_MRS[1, :, 1] - 1, ends)
        increase = Interval(float(p95_M[0] / p95_M[1] - 1), float(low), float(high), len(times[0]))
    low, high = np.quantile(added, ends)
    mean = float(p50_M[0] - (p50_M[1] if base_ms is not None else 0.0))
    return Latency(
        pairs=len(times[0]),
        model_p50=float(p50_M[0]),
        model_p95=float(p95_M[0]),
        base_p50=None if base_ms is None else float(p50_M[1]),
        base_p95=None if base_ms is None else float(p95_M[1]),
        added_ms=Interval(mean, float(low), float(high), len(times[0])),
        p95_increase=increase,
    )


def _resampled(times: list[F64], resamples: int, rng: np.random.Generator) -> F64:
    """[M, resamples, 2]: median and 95th percentile of each model's times, the same pairs drawn for all models."""
    pairs = len(times[0])
    step = max(1, _BLOCK_DRAWS // pairs)
    parts = []
    for start in range(0, resamples, step):
        drawn = rng.integers(pairs, size=(min(step, resamples - start), pairs))
        parts.append(np.stack([np.quantile(values[drawn], [0.5, 0.95], axis=1).T for values in times]))
    return np.concatenate(parts, axis=1)
