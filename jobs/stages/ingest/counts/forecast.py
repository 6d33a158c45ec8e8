"""What a run can learn and show, before it runs: steps, pairs, dev queries, and the smallest gain that can be told from chance.

    for line in forecast(config, counts, known_spread(record, "recall@3")).lines():
        print(line)

Where that is too little, the settings that would do are named.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.commits import Ledger
from cluster.errors import ArtifactError, ConfigError
from cluster.storage.store import Store
from cluster.tables.tables import read_parts
from eval.diagnosis.case import MIN_QUERIES, MIN_STEPS
from eval.diagnosis.experiments import LEAST_BATCH
from eval.figures import read_intervals
from eval.metrics import metric_name
from eval.significance import smallest_gain, spread_of
from jobs.config.config import Config
from jobs.config.derived import with_settings
from jobs.record.record import RunRecord
from jobs.stages.ingest.counts.counts import Counts
from training.engine.schedule import Pace, Schedule
from training.feed.sources import mixed_steps

MARGIN = 1.3
"""A dev split that is cut is drawn by id, so it is proposed this much larger than it must be."""
MOST_DEV = 0.5
"""data.dev_fraction is below this."""
DEV_CUT = "dev_queries_cut_from_train"


@dataclass(frozen=True)
class Spread:
    """How much two models' figures differ from query to query."""

    value: float
    """Standard deviation of the difference."""
    basis: str
    """Where it is from, for a person."""


UNRELATED = Spread(math.sqrt(0.5), "assumed: figures of two models that have nothing in common; the true one is smaller")
"""Figures between 0 and 1 have a variance of at most 1/4, and unrelated ones add up."""


@dataclass(frozen=True)
class Rounds:
    """Rounds of one length."""

    name: str
    setting: str
    """Which setting says how many epochs."""
    epochs: int
    steps: int
    """Optimizer steps of one round, if it does not stop early."""
    may_stop: bool
    """It has more epochs than training.patience."""
    pairs: int
    """Pairs of a query and a relevant item that one round sees; one may come in every epoch."""


@dataclass(frozen=True)
class Forecast:
    """What a run can learn and show."""

    rounds: tuple[Rounds, ...]
    dev_queries: int
    """With a relevant item."""
    metric: str
    confidence: float
    gain_points: float
    """The smallest measured gain that chance does not explain."""
    spread: Spread
    warnings: tuple[str, ...]
    """What is too little, and what would do."""

    def lines(self) -> list[str]:
        """For a person; warnings begin with "! "."""
        steps = "; ".join(f"{r.name}: {r.steps:,} steps on {r.pairs:,} pairs" for r in self.rounds)
        if any(rounds.may_stop for rounds in self.rounds):
            steps += "; fewer where validation ends a round early (training.patience)"
        gain = (
            f"  {self.dev_queries:,} dev queries: a gain below {self.gain_points:.1f} points of {metric_name(self.metric)} "
            f"cannot be told from chance at {self.confidence:.0%} (spread of the difference {self.spread.value:.2f}, "
            f"{self.spread.basis})"
        )
        return [f"  {steps}", gain, *(f"! {warning}" for warning in self.warnings)]

    def as_json(self) -> dict[str, Any]:
        """As `--dry-run --json` has it."""
        return {
            "rounds": [{"name": r.name, "epochs": r.epochs, "steps": r.steps, "pairs": r.pairs} for r in self.rounds],
            "dev_queries": self.dev_queries,
            "smallest_gain": {
                "metric": self.metric,
                "points": round(self.gain_points, 2),
                "confidence": self.confidence,
                "spread": round(self.spread.value, 4),
                "basis": self.spread.basis,
            },
            "warnings": list(self.warnings),
        }


def forecast(config: Config, counts: Counts, spread: Spread | None = None) -> Forecast:
    """The forecast of a run that trains.

    Args:
        counts: of data that the run accepts. spread: of an earlier evaluation; None: nothing is measured yet.
    """
    spread, dev = spread or UNRELATED, counts.with_positive["dev"]
    rounds = tuple(_rounds(config, counts))
    gain = 100 * smallest_gain(spread.value, max(1, dev), confidence=config.evaluation.confidence)
    warnings = [text for text in (_too_few_steps(config, counts, rounds), _too_few_dev(config, counts)) if text]
    return Forecast(rounds, dev, config.evaluation.primary, config.evaluation.confidence, gain, spread, tuple(warnings))


def measured_spread(store: Store, ledger: Ledger, primary: str) -> Spread | None:
    """`known_spread` of the run at `store`; None also where something of it is damaged, which its own stage will tell."""
    try:
        return known_spread(store, RunRecord.of_commits(ledger.all()), primary)
    except ArtifactError:
        return None


def known_spread(store: Store, record: RunRecord, primary: str) -> Spread | None:
    """The spread of the last round against the off-the-shelf model; of that alone, if nothing else is measured.

    From the off-the-shelf model alone its variance v is known: another model's, unrelated and as spread as it can be, adds
    1/4, so the spread is √(v + 1/4) at most. None: nothing is measured, or not by this figure.
    """
    for model in reversed(record.rounds):
        interval = read_intervals(model.change("baseline")).get(primary)
        if interval is not None and interval.high > interval.low:
            confidence = float(model.evaluation.inputs["settings"]["confidence"])
            return Spread(spread_of(interval, confidence=confidence), f"as {model.label} measured against off the shelf")
    if record.baseline is None:
        return None
    values = read_parts(store, record.baseline.evaluation.parts("per_query"))
    if primary not in values.column_names:
        return None
    variance = float(values[primary].drop_null().to_numpy().astype("float64").var()) if values.num_rows else math.nan
    if not math.isfinite(variance):
        return None
    return Spread(math.sqrt(variance + 0.25), "at most, by the off-the-shelf model's figures")


def _rounds(config: Config, counts: Counts) -> Iterator[Rounds]:
    training = config.training
    named = [("round 0 (warm-up)", "rounds.warmup_epochs", config.rounds.warmup_epochs)]
    if config.rounds.mined:
        named.append(("each mined round", "training.epochs", training.epochs))
    for name, setting, epochs in named:
        if epochs:
            steps = _steps(config, counts, epochs)
            pairs = steps * training.accumulation * training.batch_size * counts.ranks
            yield Rounds(name, setting, epochs, steps, epochs > training.patience, pairs)


def _steps(config: Config, counts: Counts, epochs: int) -> int:
    training = config.training
    steps, mix = counts.mixture(training).steps, config.data.mix
    if mix is not None and steps:
        steps += mixed_steps(steps, mix.share)
    return Pace(Schedule(epochs), steps, training.accumulation, training.max_steps).total_steps


def _too_few_steps(config: Config, counts: Counts, rounds: tuple[Rounds, ...]) -> str | None:
    few = [r for r in rounds if r.steps < MIN_STEPS]
    if not few:
        return None
    head = " and ".join(f"{r.steps} steps in {r.name}" for r in few)
    head += f" {'are' if len(few) > 1 or few[0].steps != 1 else 'is'} too few to learn from and to judge by ({MIN_STEPS} are)"
    ways = [" ".join(f"{key}={value}" for key, value in changes.items()) for changes in enough_steps(config, counts)]
    if config.data.train_fraction < 1:
        ways.append("take more of the training queries (data.train_fraction; of a probe probe.fraction)")
    return head + (": " + ", or ".join(ways) if ways else "; label more queries")


def enough_steps(config: Config, counts: Counts) -> list[dict[str, Any]]:
    """Changes of settings, by full name, with each of which every round has MIN_STEPS steps: more epochs, smaller batches."""
    if config.derived:
        return []
    batch = config.training.batch_size
    smaller = [size for size in (batch // 2, batch // 4, batch // 8) if size >= LEAST_BATCH]
    found: list[dict[str, Any]] = []
    for size in (batch, *smaller):
        changes = _epochs_for(config, counts, size)
        if changes is not None and (size == batch or not any(key.endswith("epochs") for key in changes) or size == smaller[-1]):
            found.append(changes)
        if len(found) == 2:
            break
    return found


def _epochs_for(config: Config, counts: Counts, batch: int) -> dict[str, Any] | None:
    """The changes that make every round long enough with batches of this size; None: none do."""
    changes: dict[str, Any] = {} if batch == config.training.batch_size else {"training.batch_size": batch}
    most = config.training.max_steps
    if most is not None and most < MIN_STEPS:
        changes["training.max_steps"] = MIN_STEPS
    try:
        changed = with_settings(config, changes, source="a proposal")
        for rounds in _rounds(changed, counts):
            if rounds.steps < MIN_STEPS:
                changes[rounds.setting] = math.ceil(MIN_STEPS / max(1, _steps(changed, counts, 1)))
        changed = with_settings(config, changes, source="a proposal")
    except ConfigError:
        return None
    return changes if changes and all(rounds.steps >= MIN_STEPS for rounds in _rounds(changed, counts)) else None


def _too_few_dev(config: Config, counts: Counts) -> str | None:
    dev, train = counts.with_positive["dev"], counts.with_positive["train"]
    if dev >= MIN_QUERIES:
        return None
    head = (
        f"{dev} dev queries with a relevant item are too few to compare models by ({MIN_QUERIES} are): one query is "
        f"{100 / max(1, dev):.2g} points"
    )
    if DEV_CUT not in counts.left_out:
        return f"{head}; label more dev queries, or give some of the {train:,} training queries the split dev"
    changes = enough_dev(config, counts)
    ways = [f"{key}={value}" for key, value in changes.items()] or [f"label more queries, at least {2 * MIN_QUERIES} in all"]
    return f"{head}: {', or '.join(ways)}"


def enough_dev(config: Config, counts: Counts) -> Mapping[str, Any]:
    """The share of the training queries, by the setting's name, that makes dev large enough; {}: dev is not cut, or none does."""
    labelled = counts.with_positive["dev"] + counts.with_positive["train"] + counts.left_out.get("train_queries_left_out", 0)
    wanted = math.ceil(100 * MARGIN * MIN_QUERIES / max(1, labelled)) / 100
    possible = DEV_CUT in counts.left_out and not config.derived and config.data.dev_fraction < wanted < MOST_DEV
    return {"data.dev_fraction": wanted} if possible else {}
