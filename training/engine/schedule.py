"""The learning rate of a step: a pure function of its arguments, so a resumed run has the same one."""

import math


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
