"""What to ship of a table of retrievers and re-rankers, and what it costs, in one sentence: pure.

A re-ranker takes time at every query, so it is shipped only where the primary figure is significantly better with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from eval.metrics import metric_name
from eval.reranking.table import NONE, Cell
from eval.significance import Comparison

MOST_OF_THE_GAIN = 0.9
"""Share of a gain that fewer candidates must keep to be named."""


@dataclass(frozen=True)
class Cost:
    """What re-ranking takes for each query, and what it is worth, by number of candidates."""

    p50_ms: Mapping[int, float]
    p95_ms: Mapping[int, float]
    where: str
    """What it was measured on: "1 CPU thread"."""
    figures: Mapping[int, float]
    """The primary figure of the best pair where only so many candidates are re-ranked."""


@dataclass(frozen=True)
class Shipping:
    """The answer."""

    cell: Cell
    sentence: str


def best_pair(means: Mapping[Cell, float], compared: Mapping[Cell, Comparison]) -> Cell:
    """The re-ranked cell that would be shipped: of those that are significantly better, else of all, the best; the first of
    equals."""
    pairs = [cell for cell in means if cell.reranker != NONE]
    return max([cell for cell in pairs if _is_better(compared[cell])] or pairs, key=lambda cell: means[cell])


def what_to_ship(
    means: Mapping[Cell, float],
    compared: Mapping[Cell, Comparison],
    reference: Cell,
    *,
    primary: str,
    cost: Cost,
    doubt: str = "",
) -> Shipping:
    """The cell with the highest primary figure of those that are significantly better than the reference, else the reference.

    Args:
        means: the primary figure of every cell. compared: of every cell but the reference.
        cost: of `best_pair`.
        doubt: why the figures say little; "": they do not.
    """
    name, pair, deepest = metric_name(primary), best_pair(means, compared), max(cost.p50_ms)
    takes = (
        f"re-ranking {deepest} candidates takes {_ms(cost.p50_ms[deepest])} a query (95th percentile "
        f"{_ms(cost.p95_ms[deepest])}) on {cost.where}"
    )
    note = f" This rests on too little: {doubt}." if doubt else ""
    better = [cell for cell in compared if _is_better(compared[cell])]
    if better:
        chosen = max(better, key=lambda cell: means[cell])
        price = f"; {takes}{_fewer(means[reference], means[chosen], cost)}" if chosen.reranker != NONE else ""
        gain = f"{name} {means[reference]:.3f} → {means[chosen]:.3f} ({_points(compared[chosen])})"
        return Shipping(chosen, f"Ship {chosen.label}: {gain} against {reference.label}{price}.{note}")
    change = _points(compared[pair])
    if compared[pair].significant:
        why = f"re-ranking makes it worse: even the best pair, {pair.label}, changes {name} by {change}"
    else:
        why = f"the best pair, {pair.label}, changes {name} by {change}, which may be chance"
    return Shipping(reference, f"Ship {reference.label}: {why}; {takes}.{note}")


def _is_better(change: Comparison) -> bool:
    return change.significant and change.interval.mean > 0


def _fewer(without: float, whole: float, cost: Cost) -> str:
    """The smallest number of candidates that keeps most of the gain; "" where it takes all of them."""
    gain = whole - without
    for depth in sorted(set(cost.figures) & set(cost.p50_ms))[:-1]:
        kept = cost.figures[depth] - without
        if kept >= MOST_OF_THE_GAIN * gain:
            return f", {depth} candidates {_ms(cost.p50_ms[depth])} for {100 * kept:+.1f} of these {100 * gain:+.1f} points"
    return ""


def _points(change: Comparison) -> str:
    interval = change.interval
    ends = f"[{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
    return f"{100 * interval.mean:+.1f} points {ends}, p = {change.p_adjusted:.2g}"


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:,.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"
