"""`hardmine probe`: are mined negatives worth a real run? The run itself on a share of the training queries, both arms.

It is an ordinary run in a folder of its own, <output>/<name>-probe: ingest, the baseline, the warm-up if the
configuration has one, one mined round, and an arm with random negatives only, from the same model with as many steps.
A warm-up stays because it comes before both arms: what the real run mines, it mines with a warmed-up model, and a model
that starts from nothing (static, adapter) would mine noise without one.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from cluster.progress import Progress
from cluster.storage import Store
from cluster.tables import Part, read_parts
from eval.settings import EvaluationSettings
from eval.significance import Interval, paired_bootstrap
from eval.verdict import verdict as judge
from jobs.config.config import Config
from jobs.config.derived import with_settings
from jobs.config.probe import ProbeSettings
from jobs.config.sweep import SweepSettings
from jobs.record.stages import Kind, ModelName, Stage
from jobs.run.driver import open_context
from jobs.run.rounds import run_rounds
from jobs.stages.context import Context, in_worker

MINED, RANDOM = ModelName(1), ModelName(1, random=True)
RULE_OF_THREE = 3.0
"""0 of n queries differ: up to 3 / n of all may (95 %; Hanley & Lippman-Hand 1983, JAMA 249(13))."""


@dataclass(frozen=True)
class Check:
    """One figure: mined minus random, in percentage points."""

    name: str
    value: float
    threshold: float
    interval: Interval
    """In points too."""

    @property
    def passed(self) -> bool:
        """The difference reaches the threshold."""
        return self.value >= self.threshold

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval says that there is a difference at all."""
        return judge(self.interval) != "flat"

    @property
    def half_width(self) -> float:
        """The interval as ± points; where no query differs, what the rule of three leaves open."""
        width = (self.interval.high - self.interval.low) / 2
        return width if width > 0 else 100 * RULE_OF_THREE / self.interval.queries

    @property
    def undecided(self) -> bool:
        """Not passed, but the queries are too few to tell the threshold from nothing."""
        return not self.passed and self.value - self.half_width <= 0 and self.value + self.half_width >= self.threshold

    @property
    def queries_needed(self) -> int:
        """Queries at which the interval would be ± the threshold: its width falls with the root of their number."""
        return math.ceil(self.interval.queries * (self.half_width / self.threshold) ** 2)

    def as_json(self) -> dict[str, Any]:
        """As `--json` prints it; everything in points."""
        return {
            "name": self.name,
            "value": self.value,
            "threshold": self.threshold,
            "passed": self.passed,
            "interval": asdict(self.interval) | {"excludes_zero": self.excludes_zero},
        }


def probe_config(config: Config) -> Config:
    """The run that a probe of `config` is.

    Raises:
        ConfigError: the name has no room for "-probe".
    """
    settings = config.probe
    return with_settings(
        config,
        {
            "name": f"{config.name}-probe",
            "data.train_fraction": config.data.train_fraction * settings.fraction,
            "rounds.mined": 1,
            "rounds.compare_random": True,
            "training.epochs": settings.epochs,
            # neither arm may end before the other, so neither stops early
            "training.patience": max(settings.epochs, config.rounds.warmup_epochs, config.training.patience),
            "evaluation.split": "dev",  # the test split is not looked at to decide what to run
            "evaluation.general": None,
            "evaluation.events": False,  # nor what is watched and logged of a real run
            # what the thresholds are is no part of the run: other ones keep everything that is trained
            "probe": ProbeSettings().model_dump(),
            "sweep": SweepSettings().model_dump(),
        },
        source="the probe's configuration",
    )


def probe(config: Config, *, progress: Progress, takeover: bool = False) -> dict[str, Any]:
    """Run the probe of `config`, going on from what is committed; returns it as `--json` prints it.

    Raises:
        HardmineError: as a run does.
    """
    trial = probe_config(config)
    with open_context(trial, progress=progress, takeover=takeover) as context:
        summary = run_rounds(context)
        intervals = _intervals(context, trial.evaluation)
    checks = make_checks(config.probe, intervals)
    result = {
        "passed": all(check.passed for check in checks),
        "verdict": verdict(checks),
        "checks": [check.as_json() for check in checks],
        "mined": summary["rounds"][-1]["metrics"],
        "random": summary["random_arm"]["metrics"],
        "baseline": summary["baseline"],
        "fraction": config.probe.fraction,
        "confidence": trial.evaluation.confidence,
        "steps": summary["random_arm"]["steps"],
        "output": context.store.root,
        # of the stages themselves, whenever they were made
        "seconds": round(sum({commit.key: commit.seconds["wall"] for commit in context.done.values()}.values()), 2),
    }
    context.store.write_json("probe.json", result)
    return result


def make_checks(settings: ProbeSettings, intervals: dict[str, Interval]) -> list[Check]:
    """Both checks, from "hit@5" and "hit@10": mined minus random as a share of queries."""
    checks = []
    for name, threshold in (("hit@5", settings.hit5_points), ("hit@10", settings.hit10_points)):
        found = intervals[name]
        mean, low, high = (round(100 * value, 4) for value in (found.mean, found.low, found.high))
        checks.append(Check(name, mean, threshold, Interval(mean, low, high, found.queries)))
    return checks


def verdict(checks: list[Check]) -> str:
    """ "yes", "no", or "no" for want of queries, with the reason: one sentence."""
    told = " and ".join(
        f"{check.value:+.2f} points of {check.name.capitalize()} (asked for: {check.threshold:+.2f})" for check in checks
    )
    missed = [check for check in checks if not check.passed]
    if not missed:
        chance = "".join(
            f"; but the interval of {check.name.capitalize()} includes 0, so that may be chance: about "
            f"{check.queries_needed:,} dev queries would be needed for ±{check.threshold:.2f}"
            for check in checks
            if not check.excludes_zero
        )
        return f"yes: mined negatives lead random ones by {told}{chance}"
    if all(check.undecided for check in missed):
        worst = max(missed, key=lambda check: check.queries_needed)
        return (
            f"no: too few queries to tell (the interval of {worst.name.capitalize()} is ±{worst.half_width:.2f} points with "
            f"{worst.interval.queries:,} dev queries; about {worst.queries_needed:,} queries would be needed for "
            f"±{worst.threshold:.2f}); measured: {told}"
        )
    return f"no: mined negatives against random ones make {told}"


def _intervals(context: Context, settings: EvaluationSettings) -> dict[str, Interval]:
    parts = [context.need(Stage(Kind.EVALUATE, model)).parts("per_query") for model in (MINED, RANDOM)]
    intervals: dict[str, Interval] = in_worker(compare_arms, context, context.store, *parts, settings)
    return intervals


def compare_arms(store: Store, mined: list[Part], random: list[Part], settings: EvaluationSettings) -> dict[str, Interval]:
    """Mined minus random, query by query, of "hit@5" and "hit@10": in a worker."""
    names = ["hit@5", "hit@10"]
    ours, theirs = (read_parts(store, parts, ["query_row", *names]) for parts in (mined, random))
    assert ours["query_row"].equals(theirs["query_row"]), "both arms are measured on the same queries"
    return {
        name: paired_bootstrap(
            ours[name].to_numpy(), theirs[name].to_numpy(), resamples=settings.resamples, confidence=settings.confidence
        )
        for name in names
    }
