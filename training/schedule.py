"""Decisions over time: the learning rate of a step, and when training has stopped getting better.

Pure functions of their arguments, so a resumed run makes the same decisions.
"""

import math
from collections.abc import Sequence


def learning_rate(step: int, *, total_steps: int, warmup_steps: int, peak: float, cycles: int = 1) -> float:
    """Linear warm-up from 0 to `peak`, then half a cosine down to 0; repeated in each of `cycles` equal cycles.

    (Cosine with warm restarts: Loshchilov & Hutter 2017, arXiv 1608.03983, eq. 5, with a warm-up before each cosine.)

    Args:
        step: optimiser step, counted from 0.
        total_steps: steps of all cycles together, >= 1; need not be a multiple of `cycles`.
        warmup_steps: steps from 0 to `peak` in *each* cycle, >= 0.
        peak: highest rate.
        cycles: number of equal cycles, >= 1.

    Returns:
        The rate of this step: 0 at the start of a cycle that warms up, `peak` `warmup_steps` later, 0 from
        `total_steps` on.

    Raises:
        ValueError: a count is out of range, or the warm-up does not fit into a cycle.
    """
    if step < 0 or total_steps < 1 or warmup_steps < 0 or cycles < 1:
        raise ValueError(
            "expected step >= 0, total_steps >= 1, warmup_steps >= 0 and cycles >= 1, found "
            f"step={step}, total_steps={total_steps}, warmup_steps={warmup_steps}, cycles={cycles}"
        )
    cycle_steps = total_steps / cycles
    if warmup_steps >= cycle_steps:
        raise ValueError(
            f"warmup_steps={warmup_steps} does not fit into a cycle of {cycle_steps:g} steps ({total_steps} steps in "
            f"{cycles} cycles): lower warmup_steps or cycles, or train for more steps"
        )
    if step >= total_steps:
        return 0.0
    position = step - (step * cycles // total_steps) * cycle_steps
    if position < warmup_steps:
        # A cycle may begin between two steps, and rounding may put its first step a hair before it.
        return peak * max(position, 0.0) / warmup_steps
    return peak * 0.5 * (1.0 + math.cos(math.pi * (position - warmup_steps) / (cycle_steps - warmup_steps)))


def should_stop(history: Sequence[float], patience: int) -> bool:
    """Say whether the last `patience` evaluations all failed to beat the best one before them.

    Args:
        history: one figure per evaluation, oldest first, higher is better.  An equal figure is no improvement, nor
            is NaN.
        patience: evaluations to wait for an improvement, >= 1.

    Returns:
        True to stop; False for an empty history.

    Raises:
        ValueError: `patience` is below 1.
    """
    if patience < 1:
        raise ValueError(f"patience must be >= 1 evaluation, found {patience}; to never stop early, do not ask")
    best, since_best = -math.inf, 0
    for figure in history:
        # A NaN compares False and so counts as no improvement.
        best, since_best = (figure, 0) if figure > best else (best, since_best + 1)
    return since_best >= patience
