"""A temperature that is learned: log τ with an Adam optimizer of its own, the same on every rank.

It is kept outside the engine: ZeRO would split it over ranks, and half precision would round it (log τ in bfloat16 moves in
steps of half a per cent).
"""

from __future__ import annotations

import math

import torch

from training.settings import LEARNED_TEMPERATURES

LEARNING_RATE = 0.01
"""Of log τ, where the model's own learning rate is at its peak."""


class Temperature:
    """τ and, where it is learned, the state of its optimizer."""

    def __init__(self, start: float) -> None:
        """Args: start: τ where training begins."""
        self._log = torch.nn.Parameter(torch.tensor(math.log(start), dtype=torch.float64))
        self._log.grad = torch.zeros_like(self._log)
        self._adam = torch.optim.Adam([self._log])

    @property
    def value(self) -> float:
        """τ."""
        return math.exp(self._log.item())

    def add_gradient(self, gradient: float) -> None:
        """Add a micro-step's gradient of the loss with respect to log τ: the mean over all ranks."""
        assert self._log.grad is not None
        self._log.grad += gradient

    def step(self, rate: float) -> None:
        """One step on log τ with the gradients added since the last; it stays within LEARNED_TEMPERATURES."""
        assert self._log.grad is not None
        self._adam.param_groups[0]["lr"] = rate
        self._adam.step()
        self._log.grad.zero_()
        low, high = LEARNED_TEMPERATURES
        with torch.no_grad():
            self._log.clamp_(math.log(low), math.log(high))

    def state(self) -> dict[str, float]:
        """log τ and the optimizer's state, as JSON can hold it exactly."""
        return {"log": self._log.item()} | {name: float(value) for name, value in self._adam.state[self._log].items()}

    def restore(self, state: dict[str, float]) -> None:
        """Continue from what `state` returned."""
        values = {name: torch.tensor(value, dtype=torch.float64) for name, value in state.items()}
        with torch.no_grad():
            self._log.copy_(values.pop("log"))
        self._adam.state[self._log] = values
