"""How long a round trains, how far it is, and the learning rate of a step: pure, so that a resumed run has the same ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Schedule:
    """How long a round trains."""

    epochs: int
    cycles: int = 1
    """Equal cycles of learning-rate warm-up and decay."""
    steps: int | None = None
    """Optimizer steps of all cycles together, no more and no fewer; None: epochs and settings decide."""

    @property
    def stops_early(self) -> bool:
        """Whether a training that no longer improves may end: not one whose number of steps is to equal another's."""
        return self.steps is None


@dataclass(frozen=True)
class Pace:
    """A schedule in steps."""

    schedule: Schedule
    micro_steps: int
    """Batches of an epoch, at least as many as `accumulation`."""
    accumulation: int
    """Micro-steps of an optimizer step; what does not fill the last one of an epoch is left out."""
    max_steps: int | None
    """Maximum optimizer steps of a cycle."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        return self.micro_steps // self.accumulation

    @property
    def micro_steps_per_epoch(self) -> int:
        """Micro-steps of one epoch that are trained."""
        return self.steps_per_epoch * self.accumulation

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole round, if it is not stopped early."""
        planned = self.steps_per_epoch * self.schedule.epochs
        return min(planned, self.schedule.steps or planned, self.schedule.cycles * (self.max_steps or planned))

    def after(self, epoch: int, index: int) -> tuple[int, int] | None:
        """(epoch, micro-step) that comes after micro-step `index` of `epoch`; None after the last."""
        if index + 1 < self.micro_steps_per_epoch:
            return epoch, index + 1
        return (epoch + 1, 0) if epoch + 1 < self.schedule.epochs else None


@dataclass
class Progress:
    """What changes while a round trains."""

    epoch: int = 0
    """Epochs finished."""
    index: int = 0
    """Micro-steps done of the epoch that is under way."""
    step: int = 0
    """Optimizer steps finished."""
    validation: list[float] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    """Of earlier attempts, up to the state that this one goes on from."""


def learning_rate(step: int, *, total_steps: int, warmup_fraction: float, peak: float, cycles: int = 1) -> float:
    """Linear warm-up to `peak`, then half a cosine down towards 0; repeated in each of `cycles` equal cycles.

    (Cosine with warm restarts: Loshchilov & Hutter 2017, arXiv 1608.03983, eq. 5, with a warm-up before each cosine.)

    Args:
        step: optimizer step, counted from 0.
        total_steps: steps of all cycles together, >= 1; what is left over by equal cycles begins another one.
        warmup_fraction: share of each cycle's steps in which the rate rises, within [0, 1).
        peak: highest rate.
        cycles: number of equal cycles, >= 1.

    Returns:
        The rate of this step; never 0: the first step of a warm-up and the last of a cosine are not lost.

    Raises:
        ValueError: a number is out of range.
    """
    if step < 0 or total_steps < 1 or cycles < 1 or not 0.0 <= warmup_fraction < 1.0:
        raise ValueError(
            "expected step >= 0, total_steps >= 1, cycles >= 1 and warmup_fraction within [0, 1), found "
            f"{step=}, {total_steps=}, {cycles=}, {warmup_fraction=}"
        )
    length = max(1, total_steps // cycles)
    warmup = min(int(length * warmup_fraction), length - 1)
    place = step % length + (warmup > 0)
    if place < warmup:
        return peak * place / warmup
    return peak * 0.5 * (1.0 + math.cos(math.pi * (place - warmup) / (length + 1 - warmup)))
