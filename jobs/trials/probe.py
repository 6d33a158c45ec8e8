"""`hardmine probe`: is mining worth a full run? The run itself on a share of the training queries, with both arms.

It is an ordinary run in a folder of its own, <output>/<name>-probe: ingest, the baseline, the warm-up if the
configuration has one, one mined round, and an arm with random negatives only, from the same model with as many steps.
The warm-up stays because it comes before both arms: the full run mines with a warmed-up model, and a model that starts
from nothing (static, adapter) would mine noise without one.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from cluster.session.progress import Progress
from cluster.storage.store import Store
from cluster.tables.tables import Part, read_parts
from eval.metrics import metric_name
from eval.settings import EvaluationSettings
from eval.significance import Interval, paired_bootstrap
from eval.verdict import verdict
from jobs.config.config import Config
from jobs.config.derived import with_settings
from jobs.config.probe import ProbeSettings
from jobs.config.sweep import SweepSettings
from jobs.record.stages import Kind, ModelName, Stage
from jobs.run.driver import open_context
from jobs.run.rounds import run_rounds
from jobs.stages.context import in_worker

MINED, RANDOM = ModelName(1), ModelName(1, random=True)
RULE_OF_THREE = 3.0
"""0 of n queries differ: up to 3 / n of all may (95 %; Hanley & Lippman-Hand 1983, JAMA 249(13))."""


@dataclass(frozen=True)
class Lead:
    """Mined minus random in one metric, in percentage points."""

    metric: str
    value: float
    threshold: float
    interval: Interval
    """In points too."""

    @property
    def title(self) -> str:
        """The metric as a person writes it."""
        return metric_name(self.metric)

    @property
    def passed(self) -> bool:
        """Whether the difference reaches the threshold."""
        return self.value >= self.threshold

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval shows a difference at all."""
        return verdict(self.interval) != "flat"

    @property
    def half_width(self) -> float:
        """Half the interval's width; where no query differs, the bound of the rule of three."""
        width = (self.interval.high - self.interval.low) / 2
        return width if width > 0 else 100 * RULE_OF_THREE / self.interval.queries

    @property
    def undecided(self) -> bool:
        """Not passed, but the queries are too few to tell the threshold from 0."""
        return not self.passed and self.value - self.half_width <= 0 and self.value + self.half_width >= self.threshold

    @property
    def queries_needed(self) -> int:
        """Queries at which the interval would be ± the threshold: its width falls with the root of their number."""
        return math.ceil(self.interval.queries * (self.half_width / self.threshold) ** 2)

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints; everything in points."""
        return {
            "name": self.metric,
            "value": self.value,
            "threshold": self.threshold,
            "passed": self.passed,
            "interval": asdict(self.interval) | {"excludes_zero": self.excludes_zero},
        }


@dataclass(frozen=True)
class ProbeResult:
    """The figures of both arms, and what they say."""

    leads: list[Lead]
    mined: dict[str, float | None]
    """Metrics of the mined arm; so are `random` and `baseline` of theirs."""
    random: dict[str, float | None]
    baseline: dict[str, float | None]
    fraction: float
    """Share of the training queries."""
    confidence: float
    steps: int
    """In each arm."""
    output: str
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether mining is worth a full run."""
        return all(lead.passed for lead in self.leads)

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints and probe.json holds."""
        figures = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "leads"}
        return {"passed": self.passed, "verdict": advice(self.leads), "checks": [lead.as_json() for lead in self.leads]} | figures


def probe_config(config: Config) -> Config:
    """The run that probes `config`.

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
            "evaluation.split": "dev",  # the test split must not decide what to run
            "evaluation.general": None,
            "evaluation.events": False,  # nor does a probe need what a full run logs
            # the thresholds are no part of the run: other ones re-train nothing
            "probe": ProbeSettings().model_dump(),
            "sweep": SweepSettings().model_dump(),
        },
        source="the probe's configuration",
    )


def probe(config: Config, *, progress: Progress, takeover: bool = False) -> ProbeResult:
    """Probe `config`, resuming from what is committed.

    Raises:
        HardmineError: as a run does.
    """
    trial = probe_config(config)
    with open_context(trial, progress=progress, takeover=takeover) as context:
        summary = run_rounds(context)
        per_query = [context.need(Stage(Kind.EVALUATE, arm)).parts("per_query") for arm in (MINED, RANDOM)]
        intervals = in_worker(compare_arms, context, context.store, *per_query, trial.evaluation)
    result = ProbeResult(
        measure_leads(config.probe, intervals),
        mined=summary["rounds"][-1]["metrics"],
        random=summary["random_arm"]["metrics"],
        baseline=summary["baseline"],
        fraction=config.probe.fraction,
        confidence=trial.evaluation.confidence,
        steps=summary["random_arm"]["steps"],
        output=context.store.root,
        # of the stages themselves, whenever they ran
        seconds=round(sum({commit.key: commit.seconds["wall"] for commit in context.done.values()}.values()), 2),
    )
    context.store.write_json("probe.json", result.as_json())
    return result


def measure_leads(settings: ProbeSettings, intervals: dict[str, Interval]) -> list[Lead]:
    """Both leads, from the differences of "hit@5" and "hit@10" as shares of queries."""
    leads = []
    for metric, threshold in (("hit@5", settings.hit5_points), ("hit@10", settings.hit10_points)):
        share = intervals[metric]
        mean, low, high = (round(100 * value, 4) for value in (share.mean, share.low, share.high))
        leads.append(Lead(metric, mean, threshold, Interval(mean, low, high, share.queries)))
    return leads


def advice(leads: list[Lead]) -> str:
    """One sentence: "yes", "no", or "no" because the queries are too few, with the reason."""
    differences = " and ".join(
        f"{lead.value:+.2f} points of {lead.title} (asked for at least {lead.threshold:+.2f})" for lead in leads
    )
    missed = [lead for lead in leads if not lead.passed]
    if not missed:
        chance = "".join(
            f"; but the interval of {lead.title} includes 0, so that may be chance: about "
            f"{lead.queries_needed:,} dev queries would be needed for ±{lead.threshold:.2f}"
            for lead in leads
            if not lead.excludes_zero
        )
        return f"yes: mined negatives beat random ones by {differences}{chance}"
    if all(lead.undecided for lead in missed):
        widest = max(missed, key=lambda lead: lead.queries_needed)
        return (
            f"no: too few queries to tell (the interval of {widest.title} is ±{widest.half_width:.2f} points with "
            f"{widest.interval.queries:,} dev queries; about {widest.queries_needed:,} queries would be needed for "
            f"±{widest.threshold:.2f}). Measured, mined minus random: {differences}"
        )
    return f"no: mined minus random negatives is {differences}"


def compare_arms(store: Store, mined: list[Part], random: list[Part], settings: EvaluationSettings) -> dict[str, Interval]:
    """Mined minus random in "hit@5" and "hit@10", query by query. Runs in a worker."""
    names = ["hit@5", "hit@10"]
    of_mined, of_random = (read_parts(store, parts, ["query_row", *names]) for parts in (mined, random))
    assert of_mined["query_row"].equals(of_random["query_row"]), "both arms are measured on the same queries"
    return {
        name: paired_bootstrap(
            of_mined[name].to_numpy(), of_random[name].to_numpy(), resamples=settings.resamples, confidence=settings.confidence
        )
        for name in names
    }
