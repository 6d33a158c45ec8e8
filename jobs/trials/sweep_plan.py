"""Which trials a sweep makes, which of them it chooses, and what it writes down: pure, from settings and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.commits import digest
from cluster.errors import ConfigError, TrainingDiverged
from eval.significance import Interval, paired_bootstrap
from eval.verdict import verdict
from jobs.config.config import Config
from jobs.config.derived import with_settings
from jobs.config.toml import to_toml
from training.settings import VALIDATION_K, TrainingSettings


@dataclass(frozen=True)
class Trial:
    """One combination of settings."""

    loss: str
    scale: float
    """τ of InfoNCE, margin of a triplet loss."""
    random_fraction: float

    @property
    def changes(self) -> dict[str, Any]:
        """Settings of [training] that are this trial's own."""
        if self.loss == "triplet":
            return {"loss": self.loss, "margin": self.scale, "random_fraction": self.random_fraction, "learn_temperature": False}
        return {"loss": self.loss, "temperature": self.scale, "random_fraction": self.random_fraction}

    def describe(self) -> str:
        """For a person."""
        scale = f"margin {self.scale:g}" if self.loss == "triplet" else f"τ {self.scale:g}"
        return f"{self.loss}, {scale}, random_fraction {self.random_fraction:g}"


@dataclass(frozen=True)
class Record:
    """What became of a trial; JSON-able."""

    state: str
    """finished, stopped (by the scheduler), diverged, or running."""
    recalls: list[float]
    """Validation recall after each epoch."""
    recall: float | None = None
    """Of the best epoch, whose model a round would keep; None: diverged before the first."""
    per_query: list[float] | None = None
    """Recall of each validation query at that epoch."""
    seconds: float = 0.0
    effective_negatives: float | None = None
    """Mean over the last quarter of its steps, as `hardest_weight`."""
    hardest_weight: float | None = None
    reason: str | None = None
    """Of a divergence."""


@dataclass(frozen=True)
class Choice:
    """The chosen trial, and why."""

    number: int
    reason: str
    interval: Interval | None
    """Best trial minus the configuration as it is, in recall; None: they are the same, or cannot be compared."""


def plan_trials(config: Config) -> list[Trial]:
    """The configuration as it is, then all other combinations of [sweep].

    Combinations that amount to the same (as many random negatives per query) are one trial.

    Raises:
        ConfigError: there is nothing to compare the configuration as it is with.
    """
    training, sweep = config.training, config.sweep
    as_is = Trial(
        training.loss, training.margin if training.loss == "triplet" else training.temperature, training.random_fraction
    )
    trials = {_sameness(as_is, training): as_is}
    for loss in sweep.loss:
        for scale in sweep.margin if loss == "triplet" else sweep.temperature:
            for fraction in sweep.random_fraction:
                trial = Trial(loss, scale, fraction)
                trials.setdefault(_sameness(trial, training), trial)
    if len(trials) == 1:
        raise ConfigError(
            f"[sweep] has no combination other than the configuration as it is ({as_is.describe()}: "
            f"{training.random_negatives(mined=True)} random negatives per query); add a value to sweep.temperature, "
            f"sweep.margin, sweep.loss or sweep.random_fraction"
        )
    return list(trials.values())


def _sameness(trial: Trial, training: TrainingSettings) -> tuple[str, float, int]:
    return trial.loss, trial.scale, round(training.hard_negatives * trial.random_fraction)


def trial_settings(config: Config, trial: Trial) -> TrainingSettings:
    """How a trial trains. Raises ConfigError: its settings do not fit the others."""
    changes = {f"training.{name}": value for name, value in trial.changes.items()}
    # a trial's model is not kept and a trial is not resumed: no tracker, no checkpoints within an epoch
    changes |= {"training.epochs": config.sweep.epochs, "training.trackers": [], "training.checkpoint_steps": None}
    return with_settings(config, changes, source=f"[sweep], trial {trial.describe()}").training


def trial_id(settings: TrainingSettings) -> str:
    """Short name of a trial among those of one folder."""
    return digest(settings.model_dump())[:10]


def choose(trials: Sequence[Trial], records: Sequence[Record], *, resamples: int, confidence: float) -> Choice:
    """The trial with the highest recall, unless it cannot be told from the configuration as it is (the first trial).

    Raises:
        TrainingDiverged: all trials diverged.
    """
    finished = [n for n, record in enumerate(records) if record.state == "finished" and record.recall is not None]
    if not finished:
        raise TrainingDiverged(f"all {len(records)} trials of the sweep diverged; the first: {records[0].reason}")
    best = max(finished, key=lambda n: (records[n].recall, -n))
    if best == 0:
        return Choice(0, f"the configuration as it is ({trials[0].describe()}) has the highest recall", None)
    ours, theirs = records[best].per_query, records[0].per_query
    if records[0].state == "diverged":
        return Choice(best, f"{trials[best].describe()} has the highest recall; the configuration as it is diverged", None)
    assert ours is not None
    assert theirs is not None
    interval = paired_bootstrap(np.array(ours), np.array(theirs), resamples=resamples, confidence=confidence)
    told = (
        f"{100 * interval.mean:+.2f} points of recall, {confidence:.0%} interval [{100 * interval.low:+.2f}, "
        f"{100 * interval.high:+.2f}] over {interval.queries:,} dev queries"
    )
    if verdict(interval) == "improved":
        return Choice(best, f"{trials[best].describe()} leads the configuration as it is by {told}", interval)
    return Choice(
        0,
        f"the best trial ({trials[best].describe()}) cannot be told from the configuration as it is, which is kept: {told}",
        interval,
    )


def summarise(config: Config, trials: Sequence[Trial], records: Sequence[Record], choice: Choice) -> dict[str, Any]:
    """The sweep as `--json` prints it; trials by recall, best first."""
    rows: list[dict[str, Any]] = [
        {
            "trial": number,
            "loss": trial.loss,
            "temperature": trial.scale if trial.loss == "info_nce" else None,
            "margin": trial.scale if trial.loss == "triplet" else None,
            "random_fraction": trial.random_fraction,
            "recall": record.recall,
            "epochs": len(record.recalls),
            "state": record.state,
            "stopped_early": record.state == "stopped",
            "seconds": round(record.seconds, 2),
            "effective_negatives": record.effective_negatives,
            "hardest_weight": record.hardest_weight,
            "reason": record.reason,
            "as_it_is": number == 0,
            "chosen": number == choice.number,
        }
        for number, (trial, record) in enumerate(zip(trials, records, strict=True))
    ]
    rows.sort(key=lambda row: (row["state"] == "diverged", -(row["recall"] or 0.0), row["trial"]))
    queries = records[choice.number].per_query
    return {
        "trials": rows,
        "chosen": trials[choice.number].changes,
        "reason": choice.reason,
        "interval": {"mean": choice.interval.mean, "low": choice.interval.low, "high": choice.interval.high}
        if choice.interval
        else None,
        "queries": len(queries) if queries else 0,
        "recall_at": VALIDATION_K,
        "confidence": config.evaluation.confidence,
        "seconds": round(sum(record.seconds for record in records), 2),
    }


def best_toml(config: Config, result: dict[str, Any]) -> str:
    """The configuration with what the sweep chose, as TOML under a comment that says how sure that is."""
    chosen = with_settings(
        config, {f"training.{name}": value for name, value in result["chosen"].items()}, source="what the sweep chose"
    )
    interval = result["interval"]
    noise = (
        f"Differences of less than about {50 * (interval['high'] - interval['low']):.2f} points are noise"
        if interval
        else "Small differences are noise"
    )
    lines = [
        f"Chosen by `hardmine sweep` among {len(result['trials'])} trials of at most {config.sweep.epochs} epochs on one "
        f"rank, by recall@{result['recall_at']} of {result['queries']:,} dev queries among the validation items:",
        f"{result['reason']}.",
        f"{noise}, and the best of many trials looks better than it is.",
    ]
    return "".join(f"# {line}\n" for line in lines) + to_toml(chosen)
