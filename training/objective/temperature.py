"""A temperature that is learned: log τ with an Adam of its own, the same on every rank.

It lives outside the engine: ZeRO would cut it over ranks and half precision would round it (log τ in bfloat16 moves in
steps of half a per cent).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from training.settings import TrainingSettings

BETAS, EPSILON = (0.9, 0.999), 1e-8


@dataclass
class Temperature:
    """τ and, where it is learned, the state of its optimizer (Adam: Kingma & Ba 2015, arXiv 1412.6980, algorithm 1)."""

    log: float
    first: float = 0.0
    second: float = 0.0
    steps: int = 0

    @classmethod
    def start(cls, settings: TrainingSettings) -> Temperature:
        """Where training begins."""
        return cls(math.log(settings.temperature))

    @property
    def value(self) -> float:
        """τ."""
        return math.exp(self.log)

    def update(self, gradient: float, rate: float, settings: TrainingSettings) -> None:
        """One step on log τ, kept within the range of the settings.

        Args:
            gradient: of the loss with respect to log τ, the mean over all ranks.
            rate: learning rate of this step.
        """
        self.steps += 1
        self.first = BETAS[0] * self.first + (1 - BETAS[0]) * gradient
        self.second = BETAS[1] * self.second + (1 - BETAS[1]) * gradient**2
        mean = self.first / (1 - BETAS[0] ** self.steps)
        spread = math.sqrt(self.second / (1 - BETAS[1] ** self.steps))
        low, high = settings.temperature_range
        self.log = min(max(self.log - rate * mean / (spread + EPSILON), math.log(low)), math.log(high))

    def state(self) -> dict[str, float]:
        """All of it, for a checkpoint."""
        return asdict(self)

    @classmethod
    def of(cls, state: dict[str, float]) -> Temperature:
        """What `state` gave."""
        return cls(state["log"], state["first"], state["second"], int(state["steps"]))
