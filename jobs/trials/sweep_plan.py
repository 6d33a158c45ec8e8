"""Which trials a sweep runs, which one it chooses, and what it writes down. Pure: from settings and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.commits import digest
from cluster.errors import ConfigError, TrainingDiverged
from eval.significance import Interval, paired_bootstrap
from eval.verdict import too_little, verdict
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
        """The settings of [training] that this trial changes."""
        if self.loss == "triplet":
            return {"loss": self.loss, "margin": self.scale, "random_fraction": self.random_fraction, "learn_temperature": False}
        return {"loss": self.loss, "temperature": self.scale, "random_fraction": self.random_fraction}

    def describe(self) -> str:
        """For a person."""
        scale = f"margin {self.scale:g}" if self.loss == "triplet" else f"τ {self.scale:g}"
        return f"{self.loss}, {scale}, random_fraction {self.random_fraction:g}"


@dataclass(frozen=True)
class TrialRecord:
    """How a trial went, as trial-<id>.json holds it."""

    state: str
    """finished, stopped (by the scheduler), diverged, or running."""
    recalls: list[float]
    """Validation recall after each epoch."""
    recall: float | None = None
    """Of the best epoch, whose model a round would keep; None: it diverged before the end of the first."""
    per_query: list[float] | None = None
    """Recall of each validation query at that epoch."""
    seconds: float = 0.0
    effective_negatives: float | None = None
    """Mean over the last quarter of its steps; so is `hardest_weight`."""
    hardest_weight: float | None = None
    reason: str | None = None
    """Why it diverged."""


@dataclass(frozen=True)
class Choice:
    """The chosen trial, and why."""

    number: int
    reason: str
    interval: Interval | None
    """Recall of the best trial minus that of the configuration as it is; None: the same trial, or not comparable."""


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
        for scale in [training.margin] if loss == "triplet" else sweep.temperature:
            for fraction in sweep.random_fraction:
                trial = Trial(loss, scale, fraction)
                trials.setdefault(_sameness(trial, training), trial)
    if len(trials) == 1:
        raise ConfigError(
            f"[sweep] has no combination other than the configuration as it is ({as_is.describe()}: "
            f"{training.random_negatives(mined=True)} random negatives per query); add a value to sweep.temperature, "
            f"sweep.loss or sweep.random_fraction"
        )
    return list(trials.values())


def _sameness(trial: Trial, training: TrainingSettings) -> tuple[str, float, int]:
    return trial.loss, trial.scale, round(training.hard_negatives * trial.random_fraction)


def trial_settings(config: Config, trial: Trial) -> TrainingSettings:
    """The settings that a trial trains with. Raises ConfigError: they contradict each other."""
    changes = {f"training.{name}": value for name, value in trial.changes.items()}
    # a trial's model is not kept and a trial is not resumed: no tracker, no checkpoints within an epoch
    changes |= {"training.epochs": config.sweep.epochs, "training.trackers": [], "training.checkpoint_steps": None}
    return with_settings(config, changes, source=f"[sweep], trial {trial.describe()}").training


def trial_id(settings: TrainingSettings) -> str:
    """Short name of a trial, unique within its sweep."""
    return digest(settings.model_dump())[:10]


def choose_trial(trials: Sequence[Trial], records: Sequence[TrialRecord], *, resamples: int, confidence: float) -> Choice:
    """The trial with the highest recall; the first trial (the configuration as it is) where the difference may be chance.

    Raises:
        TrainingDiverged: all trials diverged.
    """
    finished = [n for n, record in enumerate(records) if record.state == "finished" and record.recall is not None]
    if not finished:
        raise TrainingDiverged(f"all {len(records)} trials of the sweep diverged; the first: {records[0].reason}")
    best = max(finished, key=lambda n: (records[n].recall, -n))
    if best == 0:
        return Choice(0, f"the configuration as it is ({trials[0].describe()}) has the highest recall", None)
    if records[0].state == "diverged":
        return Choice(best, f"{trials[best].describe()} has the highest recall; the configuration as it is diverged", None)
    assert None not in (records[best].per_query, records[0].per_query), "only a diverged trial has no recalls"
    of_best, of_first = (np.array(records[number].per_query) for number in (best, 0))
    interval = paired_bootstrap(of_best, of_first, resamples=resamples, confidence=confidence)
    if doubt := too_little(interval.queries):
        return Choice(
            0,
            f"cannot tell ({doubt}): the configuration stays as it is; label more dev queries, or raise data.dev_fraction",
            interval,
        )
    difference = (
        f"{100 * interval.mean:+.2f} points of recall, {confidence:.0%} interval [{100 * interval.low:+.2f}, "
        f"{100 * interval.high:+.2f}] over {interval.queries:,} dev queries"
    )
    if verdict(interval) == "improved":
        return Choice(best, f"{trials[best].describe()} beats the configuration as it is by {difference}", interval)
    return Choice(
        0,
        f"the best trial ({trials[best].describe()}) may be better only by chance, so the configuration stays as it is: "
        f"{difference}",
        interval,
    )


def sweep_json(config: Config, trials: Sequence[Trial], records: Sequence[TrialRecord], choice: Choice) -> dict[str, Any]:
    """What `--json` prints of a sweep; trials by recall, best first."""
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
    queries, interval = records[choice.number].per_query, choice.interval
    return {
        "trials": rows,
        "chosen": trials[choice.number].changes,
        "reason": choice.reason,
        "interval": {"mean": interval.mean, "low": interval.low, "high": interval.high} if interval else None,
        "queries": len(queries) if queries else 0,
        "recall_at": VALIDATION_K,
        "confidence": config.evaluation.confidence,
        "seconds": round(sum(record.seconds for record in records), 2),
    }


def best_toml(config: Config, trials: Sequence[Trial], records: Sequence[TrialRecord], choice: Choice) -> str:
    """The configuration with the chosen settings, as TOML under a comment that says how sure the choice is."""
    changes = {f"training.{name}": value for name, value in trials[choice.number].changes.items()}
    interval = choice.interval
    noise = (
        f"Differences of less than about {50 * (interval.high - interval.low):.2f} points are noise"
        if interval
        else "Small differences are noise"
    )
    lines = [
        f"Chosen by `hardmine sweep` among {len(trials)} trials of at most {config.sweep.epochs} epochs on one rank, "
        f"by recall@{VALIDATION_K} of {len(records[choice.number].per_query or ()):,} dev queries among the "
        f"validation items:",
        f"{choice.reason}.",
        f"{noise}, and the best of many trials looks better than it is.",
    ]
    return "".join(f"# {line}\n" for line in lines) + to_toml(with_settings(config, changes, source="what the sweep chose"))
