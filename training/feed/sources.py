"""Which examples an epoch takes where labels come from several sources: pure functions of counts, caps, seed and epoch.

A cap is the largest share of an epoch that a source may make up. So that every epoch has as many steps as any other, the
number of steps is the largest for which the sources can fill them within their caps; of a source that has more than its
share, each epoch takes the next window of a fixed random order, so that all of its examples have their turn.

S sources, E examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.tables.tables import I64

F64 = npt.NDArray[np.float64]

SOURCE_STREAM = 0x50C1
"""Keeps the random order of a source apart from the random numbers of epochs and steps."""
ROUNDING = 1e-12
"""Relative; 0.29 * 100 is a little less than 29."""


@dataclass(frozen=True)
class Mixture:
    """What every epoch takes of each source."""

    steps: int
    """Joined batches (of all ranks) in each epoch; 0: the sources cannot fill a single one."""
    batch: int
    """Examples of a joined batch."""
    sizes_S: I64  # noqa: N815
    """Examples there are."""
    counts_S: I64  # noqa: N815
    """Examples of which an epoch's batches are made, <= sizes; what is left over when all steps are full is drawn by lot."""
    caps_S: F64  # noqa: N815
    """As set."""
    one_source_per_batch: bool

    @property
    def shares_S(self) -> F64:  # noqa: N802
        """The caps as they are kept: see `kept_caps`."""
        return kept_caps(self.sizes_S, self.caps_S)


def kept_caps(sizes_S: I64, caps_S: F64) -> F64:
    """The caps, or, where those of the sources that have examples add up to less than 1, their ratio.

    A cap is about a mixture: with synthetic labels alone a cap of 0.2 would leave nothing, so a single source is free, and
    sources with caps of 0.2 and 0.3 make up 40 % and 60 %.
    """
    together = float(caps_S[sizes_S > 0].sum())
    return np.minimum(caps_S / together, 1.0) if 0 < together < 1 else caps_S


def plan_mixture(sizes_S: I64, set_caps_S: F64, batch: int, *, one_source_per_batch: bool) -> Mixture:
    """The most steps that the sources can fill within their caps, and what each gives.

    The share of a source is at most its cap in every epoch's steps, exactly; only where every source has a cap it may be
    the next whole example (or batch, with one source per batch), since the rest could come from nowhere.

    Args:
        sizes_S: i64 examples of each source.
        set_caps_S: f64 in (0, 1]; 1 is no cap.
        batch: examples of a joined batch.
        one_source_per_batch: count in whole batches, each of one source.
    """
    caps_S = kept_caps(sizes_S, set_caps_S)
    round_up = bool((caps_S[sizes_S > 0] < 1).all())
    scale, unit = (batch, 1) if one_source_per_batch else (1, batch)
    have_S = sizes_S // scale
    steps_K = np.arange(1, int(have_S.sum()) // unit + 1, dtype=np.int64)
    room_K = np.zeros(len(steps_K), np.int64)
    for have, cap in zip(have_S.tolist(), caps_S.tolist(), strict=True):
        room_K += _within(have, cap, steps_K * unit, round_up=round_up)
    fits = np.flatnonzero(room_K >= steps_K * unit)
    steps = int(steps_K[fits[-1]]) if len(fits) else 0
    total = np.array([steps * unit])
    counts = [
        _within(have, cap, total, round_up=round_up)[0] * scale
        for have, cap in zip(have_S.tolist(), caps_S.tolist(), strict=True)
    ]
    return Mixture(steps, batch, sizes_S, np.array(counts, np.int64), set_caps_S, one_source_per_batch)


def mixed_steps(steps: int, share: float) -> int:
    """Steps of a second data set beside `steps` of the first, so that they are this share of all; at least one."""
    return max(1, round(steps * share / (1.0 - share)))


def _within(have: int, cap: float, totals_K: I64, *, round_up: bool) -> I64:
    """How many a source gives to epochs of such totals."""
    if cap >= 1:
        return np.full(len(totals_K), have)
    wanted = cap * totals_K
    whole = np.ceil(wanted * (1 - ROUNDING)) if round_up else np.floor(wanted * (1 + ROUNDING))
    limit: I64 = np.minimum(have, whole.astype(np.int64))
    return limit


def epoch_order(codes_E: I64, mixture: Mixture, *, seed: int, epoch: int) -> tuple[I64, I64]:
    """The examples of an epoch, step after step.

    Returns:
        (examples i64 [steps * batch], each at most once; turns i64 of the same length: in how many epochs the example was
        drawn before, so that the positives and negatives of an example that is drawn rarely take turns as well).
    """
    turns_E = np.full(len(codes_E), epoch, np.int64)
    for code in np.flatnonzero(mixture.counts_S < mixture.sizes_S):
        members, count = np.flatnonzero(codes_E == code), int(mixture.counts_S[code])
        shuffled = np.random.default_rng([seed, int(code), 0, SOURCE_STREAM]).permutation(members)
        turns_E[members] = -1
        place = epoch * count + np.arange(count)  # the window that this epoch has reached, round and round
        turns_E[shuffled[place % len(members)]] = place // len(members)
    rng = np.random.default_rng([seed, epoch])
    if not mixture.one_source_per_batch:
        order = rng.permutation(np.flatnonzero(turns_E >= 0))[: mixture.steps * mixture.batch]
        return order, turns_E[order]
    pools = [rng.permutation(np.flatnonzero((codes_E == code) & (turns_E >= 0))) for code in range(len(mixture.sizes_S))]
    batches = np.concatenate([pool.reshape(-1, mixture.batch) for pool in pools])
    order = rng.permutation(batches)[: mixture.steps].ravel()
    return order, turns_E[order]


def describe(mixture: Mixture, names: Sequence[str]) -> str | None:
    """One line such as "sources: click 3,200 (80 %), synthetic 800 of 5,000 (20 %, capped)"; None: one source, no cap."""
    if len(names) == 1 and mixture.caps_S[0] >= 1:
        return None
    parts = [_describe_source(mixture, code, name) for code, name in enumerate(names)]
    line = f"sources{', one per batch' if mixture.one_source_per_batch else ''}: {', '.join(parts)}"
    together = float(mixture.caps_S[mixture.sizes_S > 0].sum())
    if len(names) == 1:
        return f"{line}; its cap of {percent(together)} is for mixtures"
    return f"{line}; the caps add up to {percent(together)} only and are kept as a ratio" if together < 1 else line


def _describe_source(mixture: Mixture, code: int, name: str) -> str:
    size, count = int(mixture.sizes_S[code]), int(mixture.counts_S[code])
    usable = size // mixture.batch * mixture.batch if mixture.one_source_per_batch else size
    note = ", capped" if count < usable else "" if usable or not size else f", fewer than a batch of {mixture.batch:,}"
    share = percent(count / max(1, int(mixture.counts_S.sum())))
    return f"{name or 'unnamed'} {count:,}{f' of {size:,}' if count < size else ''} ({share}{note})"


def too_few(mixture: Mixture, names: Sequence[str], *, batch_size: int, world: int) -> str:
    """Why there is not a single step, and what to change.

    Args:
        mixture: one without steps.
        batch_size: of each of `world` ranks.
    """

    def steps(size: int) -> int:
        one = mixture.one_source_per_batch
        return plan_mixture(mixture.sizes_S, mixture.caps_S, size * world, one_source_per_batch=one).steps

    fits = next((size for size in range(batch_size - 1, 1, -1) if steps(size)), None)
    ways = [f"set training.batch_size to {fits} or less" if fits else "add labels, or use fewer ranks"]
    limits = ""
    if (mixture.caps_S < 1).any() or mixture.one_source_per_batch:
        what = "all of one source" if mixture.one_source_per_batch else "within the caps of their sources"
        limits = f", {what} ({describe_sizes(mixture, names)})"
        ways.append(
            "set training.one_source_per_batch = false"
            if mixture.one_source_per_batch
            else "raise a cap in training.label_sources"
        )
    return (
        f"a step takes {batch_size} queries on each of {world} rank(s){limits}, but there are only "
        f"{int(mixture.sizes_S.sum())} training queries with a positive; {', or '.join(ways)}"
    )


def describe_sizes(mixture: Mixture, names: Sequence[str]) -> str:
    """What there is of each source, e.g. "click 3,200, synthetic 5,000 with a cap of 20 %"."""
    limits = [f" with a cap of {percent(cap)}" if cap < 1 else "" for cap in mixture.shares_S.tolist()]
    return ", ".join(
        f"{name or 'unnamed'} {size:,}{limit}" for name, size, limit in zip(names, mixture.sizes_S.tolist(), limits, strict=True)
    )


def percent(share: float) -> str:
    """For people, e.g. "80 %"."""
    return f"{100 * share:.3g} %"


def cumulative_popularity(counts_N: I64, power: float) -> F64 | None:
    """[N] cumulative probability in proportion to (1 + count)^power; None where all are alike (power 0).

    (word2vec draws its negatives by frequency to the power 0.75: Mikolov 2013, arXiv 1310.4546, section 2.2.)
    """
    if not power:
        return None
    total: Any = np.cumsum((1.0 + counts_N) ** power)
    return np.asarray(total / total[-1], np.float64)


def draw_items(rng: np.random.Generator, shape: tuple[int, int], num_items: int, cumulative_N: F64 | None) -> I64:
    """Random item rows, i64, with repeats: all alike, or by `cumulative_popularity`."""
    if cumulative_N is None:
        return rng.integers(0, num_items, shape, dtype=np.int64)
    # random() is below 1 and the last cumulative value is exactly 1, so that the row found is one of the table
    return np.searchsorted(cumulative_N, rng.random(shape), side="right").astype(np.int64)
