"""How many steps a round has, which comes next, and the learning rate of each."""

from itertools import pairwise
from typing import Any

import pytest

from training.engine.schedule import Pace, Schedule, learning_rate


def rates(total_steps: int, warmup_fraction: float, cycles: int = 1) -> list[float]:
    return [
        learning_rate(step, total_steps=total_steps, warmup_fraction=warmup_fraction, peak=2.0, cycles=cycles)
        for step in range(total_steps)
    ]


def test_warm_up_is_linear_from_the_first_step_to_the_peak_and_the_cosine_falls_to_almost_nothing() -> None:
    got = rates(99, 0.1)
    assert got[:9] == pytest.approx([2.0 * (step + 1) / 9 for step in range(9)])
    assert got[8] == 2.0
    assert got[8 + 91 // 2] == pytest.approx(1.0, abs=0.02)  # half way down
    assert 0.0 < got[-1] < 0.01
    assert all(a > b for a, b in pairwise(got[8:]))


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    assert rates(10, 0.0)[0] == 2.0


def test_no_step_is_lost_on_a_rate_of_zero() -> None:
    for total in range(1, 12):
        for fraction in (0.0, 0.1, 0.5, 0.9):
            assert all(0.0 < rate <= 2.0 for rate in rates(total, fraction)), (total, fraction)


def test_cycles_repeat_the_curve_of_one_round() -> None:
    assert rates(120, 0.1, cycles=3) == pytest.approx(rates(40, 0.1) * 3)
    assert rates(7, 0.0, cycles=2) == pytest.approx([*rates(3, 0.0) * 2, rates(3, 0.0)[0]])


@pytest.mark.parametrize("bad", [{"step": -1}, {"total_steps": 0}, {"warmup_fraction": 1.0}, {"cycles": 0}])
def test_impossible_schedules_are_refused(bad: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"step": 0, "total_steps": 100, "warmup_fraction": 0.1, "cycles": 1} | bad
    with pytest.raises(ValueError, match="expected step >= 0"):
        learning_rate(settings.pop("step"), peak=1.0, **settings)


@pytest.mark.parametrize(
    ("schedule", "max_steps", "want"),
    [
        (Schedule(3), None, 15),
        (Schedule(3), 4, 4),
        (Schedule(3), 40, 15),
        (Schedule(6, cycles=2), 4, 8),
        (Schedule(6, cycles=2, steps=7), None, 7),
        (Schedule(6, cycles=2, steps=70), 20, 30),
    ],
)
def test_a_round_has_the_steps_of_its_epochs_or_fewer(schedule: Schedule, max_steps: int | None, want: int) -> None:
    assert Pace(schedule, micro_steps=11, accumulation=2, max_steps=max_steps).total_steps == want


def test_micro_steps_follow_each_other_through_all_epochs() -> None:
    pace = Pace(Schedule(3), micro_steps=5, accumulation=2, max_steps=None)
    place: tuple[int, int] | None = (0, 0)
    seen = []
    while place is not None:
        seen.append(place)
        place = pace.after(*place)
    assert seen == [(epoch, index) for epoch in range(3) for index in range(4)], "the fifth fills no optimizer step"


def test_a_training_that_is_to_equal_another_s_steps_never_ends_early() -> None:
    assert Schedule(3).stops_early
    assert not Schedule(3, steps=30).stops_early, "the random arm of one mined round too, which has one cycle"
