"""Learning rate and early stopping."""

import math
from itertools import pairwise

import pytest

from training.schedule import learning_rate, should_stop


def rates(total_steps: int, warmup_steps: int, cycles: int = 1) -> list[float]:
    return [
        learning_rate(step, total_steps=total_steps, warmup_steps=warmup_steps, peak=2.0, cycles=cycles)
        for step in range(total_steps + 1)
    ]


def test_warm_up_is_linear_and_cosine_ends_at_zero() -> None:
    got = rates(100, 10)
    assert got[:11] == pytest.approx([0.2 * step for step in range(11)])
    assert got[55] == pytest.approx(1.0)  # half way down
    assert got[100] == 0.0
    assert all(a > b for a, b in pairwise(got[10:]))


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    assert rates(10, 0)[0] == 2.0


def test_cycles_repeat_the_same_curve() -> None:
    got = rates(120, 5, cycles=3)
    one = rates(40, 5)[:40]
    assert got[:120] == pytest.approx(one * 3)
    assert got[120] == 0.0


@pytest.mark.parametrize(("total_steps", "cycles"), [(100, 3), (7, 2), (101, 7), (5, 5)])
def test_cycles_that_do_not_divide_the_steps_stay_within_zero_and_peak(total_steps: int, cycles: int) -> None:
    warmup_steps = 0 if cycles == total_steps else 1
    got = rates(total_steps, warmup_steps, cycles)
    assert all(0.0 <= rate <= 2.0 for rate in got)
    assert sum(b > a for a, b in pairwise(got)) >= cycles - 1 or warmup_steps == 0


def test_after_the_last_step_the_rate_is_zero() -> None:
    assert learning_rate(10_000, total_steps=100, warmup_steps=10, peak=1.0) == 0.0


@pytest.mark.parametrize(
    "bad", [{"step": -1}, {"total_steps": 0}, {"warmup_steps": -1}, {"cycles": 0}, {"warmup_steps": 50, "cycles": 2}]
)
def test_impossible_schedules_are_refused(bad: dict[str, int]) -> None:
    settings = {"step": 0, "total_steps": 100, "warmup_steps": 10, "cycles": 1} | bad
    with pytest.raises(ValueError, match=r"expected step >= 0|does not fit into a cycle of 50 steps"):
        learning_rate(settings.pop("step"), peak=1.0, **settings)


@pytest.mark.parametrize(
    ("history", "want"),
    [
        ([], False),
        ([0.5], False),
        ([0.5, 0.4], False),
        ([0.5, 0.4, 0.3], True),
        ([0.5, 0.5, 0.5], True),  # equal is no improvement
        ([0.5, 0.4, 0.6], False),
        ([0.5, 0.4, 0.6, 0.5, 0.55], True),
        ([0.1, 0.2, 0.3, 0.4], False),
        ([0.5, math.nan, math.nan], True),
        ([math.nan, 0.5, 0.4], False),
    ],
)
def test_should_stop_after_two_evaluations_without_a_new_best(history: list[float], want: bool) -> None:
    assert should_stop(history, patience=2) is want


def test_patience_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="patience must be >= 1"):
        should_stop([0.5], patience=0)
