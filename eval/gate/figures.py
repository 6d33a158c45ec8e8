"""What is known of a model when a gate judges it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from eval.diagnosis.evidence import Slice
from eval.gate.latency import Latency
from eval.significance import Interval


@dataclass(frozen=True, eq=False)
class GateFigures:
    """What is known of a model and of the off-the-shelf one. What is missing is not checked, for the reason in `missing`."""

    primary: str
    metrics: Mapping[str, Interval]
    """Mean of each metric with its interval."""
    gains: Mapping[str, Interval] = field(default_factory=dict)
    """Metric -> what it is better by than off the shelf, a share of one; above 0 is better, also for bad_top1."""
    not_significant: Mapping[str, float] = field(default_factory=dict)
    """Metric -> p of a gain that is not significant: chance explains it, even if its interval lies above 0."""
    worse: Sequence[str] | None = None
    """Metrics that are significantly worse than off the shelf (corrected for their number); None: they were not compared."""
    attainable: Mapping[str, float] = field(default_factory=dict)
    """Metric -> what a perfect model gets on these queries; 0 for bad_top1."""
    results: Mapping[str, float] = field(default_factory=dict)
    """eval/results/diversity.py, of the first ten results of all queries."""
    baseline_results: Mapping[str, float] = field(default_factory=dict)
    slices: Sequence[Slice] = ()
    general: Interval | None = None
    """What the primary figure is better by on the general set."""
    latency: Latency | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    """Kind of figures ("results", "slices", "general", "latency", "latency:p95") -> why there are none. A kind that is in
    neither is none that the data could have."""
    is_baseline: bool = False
    """The model is the off-the-shelf one: there is nothing to compare it with."""
    nothing_new: bool = False
    """It is that because no round was better."""
