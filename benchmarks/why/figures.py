"""The formulas of docs/why-hard-negatives.md as functions, so that a test can hold the page to them.

Q queries, C candidates of a query, N items, R negatives in order of their score.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]


def softmax_gradient(scores_C: F64, temperature: float, positive: int = 0) -> tuple[F64, F64]:
    """What InfoNCE does to the cosines of one query's candidates.

    dL/ds_positive = -(1 - p_positive) / temperature and dL/ds_c = p_c / temperature.

    Returns:
        (p [C], the softmax; dL/ds [C], whose sum is 0).
    """
    logits_C = np.asarray(scores_C, np.float64) / temperature
    p_C = np.exp(logits_C - logits_C.max())
    p_C /= p_C.sum()
    gradient_C = p_C / temperature
    gradient_C[positive] = -(1 - p_C[positive]) / temperature
    return p_C, gradient_C


def weights_by_position(scores_QR: F64, temperature: float) -> F64:
    """Share of the pushing force that falls on the hardest negative, the second, and so on: the mean over queries [R].

    Args:
        scores_QR: cosines of each query's negatives, highest first.
    """
    logits_QR = scores_QR / temperature
    w_QR = np.exp(logits_QR - logits_QR[:, :1])
    mean_R: F64 = (w_QR / w_QR.sum(axis=1, keepdims=True)).mean(axis=0)
    return mean_R


def effective_number(scores_QR: F64, temperature: float) -> float:
    """exp of the entropy of the negatives' weights, the mean over queries: telemetry's `effective_negatives`."""
    logits_QR = scores_QR / temperature
    w_QR = np.exp(logits_QR - logits_QR[:, :1])
    w_QR /= w_QR.sum(axis=1, keepdims=True)
    entropy_Q = -(w_QR * np.log(np.maximum(w_QR, 1e-300))).sum(axis=1)
    return float(np.exp(entropy_Q).mean())


def expected_best_position(num_items: int, draws: int) -> float:
    """Expected position of the hardest of `draws` items drawn at random, without repeats, among `num_items`.

    (N + 1) / (n + 1): n draws cut the N positions into n + 1 gaps of equal expected length (David & Nagaraja, Order
    Statistics, 3rd ed., section 3.7).
    """
    return (num_items + 1) / (draws + 1)


def chance_of_hard(num_items: int, hard: int, draws: int) -> float:
    """Chance that at least one of `draws` items, drawn without repeats, is among the `hard` hardest of `num_items`."""
    if draws > num_items - hard:
        return 1.0
    log_none = (
        math.lgamma(num_items - hard + 1)
        - math.lgamma(num_items - hard - draws + 1)
        - math.lgamma(num_items + 1)
        + math.lgamma(num_items - draws + 1)
    )
    return -math.expm1(log_none)


def draws_for_chance(num_items: int, hard: int, chance: float) -> int:
    """Fewest draws with which that chance is reached; about -ln(1 - chance) N / hard."""
    low, high = 0, num_items
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if chance_of_hard(num_items, hard, middle) >= chance else (middle + 1, high)
    return low
