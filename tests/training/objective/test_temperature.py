"""A learned temperature follows Adam within its range, and continues from its state as if it had not been interrupted."""

import json
import math

import pytest

from training.objective.temperature import Temperature
from training.settings import LEARNED_TEMPERATURES

GRADIENTS = (0.3, -1.2, 0.01, 4.0, -0.5)


def adam(log: float, gradients: tuple[float, ...], rate: float) -> float:
    """Kingma & Ba 2015 (arXiv 1412.6980), algorithm 1, written out."""
    first = second = 0.0
    for step, gradient in enumerate(gradients, start=1):
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        log -= rate * (first / (1 - 0.9**step)) / (math.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return log


def move(temperature: Temperature, gradient: float, rate: float) -> None:
    for share in (0.25, 0.75):  # of two micro-steps
        temperature.add_gradient(share * gradient)
    temperature.step(rate)


def test_steps_equal_adam_as_published() -> None:
    temperature = Temperature(0.05)
    for gradient in GRADIENTS:
        move(temperature, gradient, 0.02)
    assert temperature.value == pytest.approx(math.exp(adam(math.log(0.05), GRADIENTS, 0.02)), rel=1e-9)


@pytest.mark.parametrize("before", [0, 1, 3])
def test_a_restored_temperature_moves_exactly_as_one_that_was_never_interrupted(before: int) -> None:
    undisturbed, stopped, restored = Temperature(0.05), Temperature(0.05), Temperature(0.1)
    for gradient in GRADIENTS[:before]:
        move(stopped, gradient, 0.02)
    restored.restore(json.loads(json.dumps(stopped.state())))
    for gradient in GRADIENTS[before:]:
        move(restored, gradient, 0.02)
    for gradient in GRADIENTS:
        move(undisturbed, gradient, 0.02)
    assert restored.value == undisturbed.value
    assert restored.state() == undisturbed.state()


@pytest.mark.parametrize(("gradient", "end"), [(1.0, LEARNED_TEMPERATURES[0]), (-1.0, LEARNED_TEMPERATURES[1])])
def test_it_stays_within_its_range(gradient: float, end: float) -> None:
    temperature = Temperature(0.05)
    for _ in range(100):
        move(temperature, gradient, 0.05)
    assert temperature.value == pytest.approx(end)
