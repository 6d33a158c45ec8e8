"""A learned temperature moves as torch's Adam would move it, within its range."""

import math

import pytest
import torch

from training.objective.temperature import Temperature
from training.settings import TrainingSettings


def test_steps_equal_torch_adam() -> None:
    settings = TrainingSettings(temperature=0.05, learn_temperature=True)
    ours = Temperature.start(settings)
    log = torch.nn.Parameter(torch.tensor(math.log(0.05), dtype=torch.float64))
    adam = torch.optim.Adam([log], lr=0.02)
    for gradient in (0.3, -1.2, 0.01, 4.0, -0.5):
        log.grad = torch.tensor(gradient, dtype=torch.float64)
        adam.step()
        ours.update(gradient, 0.02, settings)
    assert ours.value == pytest.approx(math.exp(log.item()), rel=1e-9)
    assert Temperature.of(ours.state()) == ours


@pytest.mark.parametrize(("gradient", "end"), [(1.0, 0.04), (-1.0, 0.06)])
def test_it_stays_within_its_range(gradient: float, end: float) -> None:
    settings = TrainingSettings(temperature=0.05, learn_temperature=True, temperature_range=(0.04, 0.06))
    temperature = Temperature.start(settings)
    for _ in range(100):
        temperature.update(gradient, 0.05, settings)
    assert temperature.value == pytest.approx(end)
