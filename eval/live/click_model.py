"""What a ranking that nobody has seen would be clicked, from a log of what others were shown: a position-based click model.

A result is clicked if it is examined, which depends on its position alone, and attracts, which depends on query and item alone
(Richardson, Dominowska and Ragno, WWW 2007; fitted by EM as in Chuklin, Markov and de Rijke, Click Models for Web Search, 2015,
section 4.2). An item that was shown at several positions for one query tells the two apart.

U (query, item) pairs, R rows of the log (a pair at a position), Q queries, K positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from cluster.tables.tables import I64

F64 = npt.NDArray[np.float64]
PRIOR = 2.0
"""A pair counts as if it had also been shown so often with the mean attraction: one click on one showing is no certainty."""
LEAST_LINKED = 0.02
"""Share of the showings that must be of pairs shown at several positions; below, the positions' worth is assumed."""
ROUNDS = 100


@dataclass(frozen=True)
class Showings:
    """A log, counted."""

    pair: I64
    """[R] code of the pair, 0 … U − 1."""
    position: I64
    """[R] from 0."""
    shown: I64
    """[R] how often the pair stood there."""
    clicked: I64
    """[R] how often it was clicked there, at most as often as it was shown."""

    @property
    def linked(self) -> float:
        """Share of the showings whose pair was shown at several positions."""
        several = np.bincount(self.pair) > 1  # rows are distinct (pair, position)
        return float(self.shown[several[self.pair]].sum() / self.shown.sum())


@dataclass(frozen=True)
class ClickModel:
    """What was fitted."""

    examined: F64
    """[K] of the first position it is 1: only the product with attraction is known."""
    attracts: F64
    """[U] how often the pair is clicked in the first position."""
    mean: float
    """Of attraction, over showings."""
    fitted: bool
    """Whether the positions' worth is from the log; else it is assumed to be 1 / position."""


def fit_click_model(log: Showings) -> ClickModel:
    """The most likely model, with PRIOR.

    Raises:
        ValueError: the log has no row.
    """
    if not len(log.pair):
        raise ValueError("expected a log with showings, found none")
    positions = int(log.position.max()) + 1
    total_U = np.bincount(log.pair, log.shown)
    total_K = np.bincount(log.position, log.shown, minlength=positions)
    examined = 1.0 / (1.0 + np.arange(positions))
    fitted = log.linked >= LEAST_LINKED
    rate = float(log.clicked.sum() / log.shown.sum())
    mean = min(1.0, max(1e-6, rate / float((examined * total_K).sum() / total_K.sum())))
    attracts = np.full(len(total_U), mean)
    missed = log.shown - log.clicked
    for _ in range(ROUNDS):
        looks, wants = examined[log.position], attracts[log.pair]
        unclicked = missed / np.maximum(1.0 - looks * wants, 1e-12)
        wanted = log.clicked + unclicked * wants * (1.0 - looks)
        attracts = (np.bincount(log.pair, wanted, minlength=len(total_U)) + PRIOR * mean) / (total_U + PRIOR)
        if fitted:
            looked = log.clicked + unclicked * looks * (1.0 - wants)
            examined = np.bincount(log.position, looked, minlength=positions) / np.maximum(total_K, 1)
        mean = float(np.average(attracts, weights=total_U))
    scale = max(examined[0], 1e-12)
    return ClickModel(examined / scale, attracts * scale, mean * scale, fitted)


@dataclass(frozen=True)
class ClickForecast:
    """Clicks per query of two rankings, means over the traffic."""

    a: float
    b: float
    difference: float
    low: float
    high: float
    """95 % interval of the difference, over queries."""
    b_if_unwanted: float
    """The same of B, if nobody ever clicks what was never shown."""
    known_a: float
    known_b: float
    """Share of the looks at results that fall on a pair that the log has shown."""


def forecast_clicks(model: ClickModel, a_QK: I64, b_QK: I64, weight_Q: F64) -> ClickForecast:
    """What the two rankings would be clicked.

    Args:
        a_QK, b_QK: codes of the pairs that are shown; -1: a pair that the log has never shown; -2: the list has ended.
        weight_Q: how often each query is asked.
    """
    a_Q, known_a = _clicks(model, a_QK, weight_Q, model.mean)
    b_Q, known_b = _clicks(model, b_QK, weight_Q, model.mean)
    least_Q, _ = _clicks(model, b_QK, weight_Q, 0.0)
    gain_Q = b_Q - a_Q
    difference = float(np.average(gain_Q, weights=weight_Q))
    spread = float(np.sqrt((weight_Q**2 * (gain_Q - difference) ** 2).sum()) / weight_Q.sum())
    half = NormalDist().inv_cdf(0.975) * spread
    means = [float(np.average(values, weights=weight_Q)) for values in (a_Q, b_Q, least_Q)]
    return ClickForecast(means[0], means[1], difference, difference - half, difference + half, means[2], known_a, known_b)


def _clicks(model: ClickModel, pairs_QK: I64, weight_Q: F64, unknown: float) -> tuple[F64, float]:
    """([Q] expected clicks, share of looks that fall on known pairs)."""
    looks_K = np.zeros(pairs_QK.shape[1])
    looks_K[: len(model.examined)] = model.examined[: len(looks_K)]
    looks_K[len(model.examined) :] = model.examined[-1]  # nobody was shown so many: as the last
    attracts_QK = np.where(pairs_QK >= 0, model.attracts[np.maximum(pairs_QK, 0)], np.where(pairs_QK == -1, unknown, 0.0))
    looks = weight_Q[:, None] * looks_K * (pairs_QK > -2)
    known = float((looks * (pairs_QK >= 0)).sum() / max(looks.sum(), 1e-12))
    clicks: F64 = (attracts_QK * looks_K).sum(axis=1)
    return clicks, known
