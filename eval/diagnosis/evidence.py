"""What the rules of a diagnosis read: plain figures, gathered by `jobs` from a run's commits or from another trainer's log.

Everything may be missing: a log of another trainer has a loss and a recall, a run without an arm of random negatives has
one arm. A rule whose figures are missing says nothing.

Shape suffixes: S micro-steps of one training, V its validations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from eval.significance import Interval

F64 = npt.NDArray[np.float64]
ArmName = Literal["mined", "random", "log"]

STEP_FIGURES = (
    "step",
    "epoch",
    "loss",
    "positive_probability",
    "hardest_weight",
    "effective_negatives",
    "negatives_per_query",
    "dead_negatives",
    "above_positive",
    "gradient_share_hard",
    "gradient_share_random",
    "gradient_share_in_batch",
    "gradient_share_cross_rank",
    "above_hard",
    "above_random",
    "dead_hard",
    "dead_random",
    "cosine_hard",
    "cosine_random",
    "cosine_in_batch",
    "alignment",
    "uniformity",
    "mean_pairwise_cosine",
    "temperature",
    "gradient_norm",
    "learning_rate",
)
"""Columns of telemetry that rules may read; training/telemetry/gradient_geometry.py defines them."""


@dataclass(frozen=True, eq=False)
class Training:
    """One training of one round, as its telemetry tells it."""

    name: str
    """For a person and for a command: round-01, round-02-random."""
    round: int
    steps: Mapping[str, F64]
    """Column -> float64 [S], in order; NaN where a line has no such figure; columns that no line has are left out."""
    validation_steps: F64 = field(default_factory=lambda: np.zeros(0))
    """[V] optimizer step after which each validation was made."""
    validation_recall: F64 = field(default_factory=lambda: np.zeros(0))
    """[V] recall, a share; on fewer items than a `Measurement`, so the two cannot be compared."""
    validation_places: Sequence[str] = ()
    """[V] where each validation stands in another trainer's log: "step 750, epoch 0.75"."""


@dataclass(frozen=True, eq=False)
class Slice:
    """The queries that share a value of a column."""

    column: str
    value: str
    queries: int
    metrics: Mapping[str, float]
    against_baseline: Interval | None = None
    """Of the primary metric."""
    significant: bool = False
    """After the correction for the number of slices."""
    attainable: float | None = None
    """The primary metric of a perfect model on these queries."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """One model measured on the dev queries among the whole corpus."""

    name: str
    """baseline, round-01, round-02-random."""
    round: int
    queries: int
    metrics: Mapping[str, float]
    against_baseline: Mapping[str, Interval] = field(default_factory=dict)
    against_previous: Mapping[str, Interval] = field(default_factory=dict)
    """Against the round that this one was trained from."""
    against_mined: Mapping[str, Interval] = field(default_factory=dict)
    """Of the random arm only: against the last mined round, after as many steps."""
    slices: Sequence[Slice] = ()
    results: Mapping[str, float] = field(default_factory=dict)
    """eval/results/diversity.py: coverage, gini, top_share, popularity, similarity … of the first ten hits."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Percentiles of cosines by kind: positive_p50, hard_p50, random_p50 …"""
    attainable: Mapping[str, float] = field(default_factory=dict)
    """What a perfect model gets on these queries, by metric."""


@dataclass(frozen=True, eq=False)
class Mining:
    """One mining of negatives: figures of mining.json."""

    name: str
    round: int
    queries: int
    candidates: int
    hit_rate: float
    queries_short: int
    queries_empty: int
    suspected: int
    """Candidates that score above the query's best relevant item."""
    dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Arm:
    """One line of trainings that start from the same model."""

    name: ArmName
    start: Measurement | None = None
    """What the arm started from: the warm-up's measurement, or the baseline."""
    trainings: Sequence[Training] = ()
    measurements: Sequence[Measurement] = ()
    """After each training, in order; as many as there are, the last may be missing while a run goes on."""
    minings: Sequence[Mining] = ()
    """Before each training of a mined arm."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything that is known of a run."""

    arms: Sequence[Arm]
    primary: str = "recall@3"
    baseline: Measurement | None = None
    general: Sequence[Measurement] = ()
    """The general set: the off-the-shelf model first, then each mined round."""
    leakage: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Column (or "text") -> {"positives", "random"}: share of pairs whose values agree exactly (eval/results/leakage.py)."""
    settings: Mapping[str, float | str | bool] = field(default_factory=dict)
    """What the run was told, by the names of the configuration: training.temperature, training.batch_size, encoder.kind …"""
    items: int = 0
    """Size of the corpus; 0: unknown."""
    verb: tuple[str, ...] = ("run",)
    """What follows `hardmine` in a command that starts the run again, before `config`."""
    config: tuple[str, ...] = ()
    """What follows `verb` in a command that starts the run again; (): no file of it is known (another trainer's log)."""
    dev_is_cut: bool = False
    """The dev split was cut from the training queries, so data.dev_fraction has an effect."""
    training_queries: int = 0
    """0: unknown."""
    mining_advice: tuple[str, ...] = ()
    """What the report of the last mining would change; it counts where nothing is ill."""
    checkpoint: str = "CHECKPOINT"
    """Another trainer's log only: the folder of the model that it was written beside."""

    @property
    def is_log(self) -> bool:
        """Another trainer's log: its settings have other names than ours."""
        return any(arm.name == "log" for arm in self.arms)
