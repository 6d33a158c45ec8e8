"""Which split a text belongs to: one for each text, so that no twin crosses. Pure.

T texts.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from cluster.tables.tables import I64

SPLITS = ("train", "dev", "test")
HOUR = 3_600_000
LEAST_HOURS = 10
"""A log of fewer hours is not cut by time."""


def cut_times(hours: Mapping[int, int], held_out: float) -> tuple[int, int]:
    """(first millisecond of dev's part, of test's part); (0, 0): the log is split by text.

    Args:
        hours: hour since 1970 -> queries in it.
    """
    if not held_out or len(hours) < LEAST_HOURS:
        return 0, 0
    order = sorted(hours)
    below = np.cumsum([hours[hour] for hour in order])
    total = below[-1]
    dev = int(np.searchsorted(below, (1 - 2 * held_out) * total, side="right"))
    test = int(np.searchsorted(below, (1 - held_out) * total, side="right"))
    return order[min(dev, len(order) - 1)] * HOUR, order[min(test, len(order) - 1)] * HOUR


def by_text(keys_T: npt.NDArray[np.uint64], held_out: float) -> I64:
    """[T] 0 train, 1 dev, 2 test, by the hash of the text."""
    share = (keys_T >> np.uint64(11)).astype(np.float64) / 2.0**53
    below = np.asarray([held_out, 2 * held_out])
    return 2 - np.searchsorted(below, share, side="right").astype(np.int64)


def by_time(first_T: I64, cuts: tuple[int, int]) -> I64:
    """[T] 0 train, 1 dev, 2 test, by when a text was first asked; a text without a time is trained on."""
    return np.searchsorted(np.asarray(cuts), first_T, side="right").astype(np.int64)
