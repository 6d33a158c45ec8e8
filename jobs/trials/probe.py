"""`hardmine probe`: is mining worth a full run? The run itself on a share of the training queries, with both arms.

It is an ordinary run in a folder of its own, <output>/<name>-probe: ingest, the baseline, the warm-up if the
configuration has one, one mined round, and an arm with random negatives only, from the same model with as many steps.
The warm-up stays because it comes before both arms: the full run mines with a warmed-up model, and a model that starts
from nothing (static, adapter) would mine noise without one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from cluster.session.progress import Progress
from cluster.storage.store import Store
from cluster.tables.tables import Part, read_parts
from eval.settings import EvaluationSettings
from eval.significance import Interval, paired_bootstrap
from jobs.config.config import Config
from jobs.config.derived import with_settings
from jobs.config.probe import ProbeSettings
from jobs.config.sweep import SweepSettings
from jobs.record.stages import Kind, ModelName, Stage
from jobs.run.driver import open_context
from jobs.run.rounds import run_rounds
from jobs.stages.context import in_worker
from jobs.stages.mine.task import mining_settings
from jobs.trials.probe_answer import Lead, Trial

MINED, RANDOM = ModelName(1), ModelName(1, random=True)


@dataclass(frozen=True)
class ProbeResult:
    """The figures of both arms, and what they say."""

    lead: Lead
    mined: dict[str, float | None]
    """Metrics of the mined arm; so are `random` and `baseline` of theirs."""
    random: dict[str, float | None]
    baseline: dict[str, float | None]
    confidence: float
    output: str
    seconds: float

    @property
    def share(self) -> float:
        """Of the training queries that were used, of all."""
        return self.lead.trial.train_queries / max(1, self.lead.trial.all_queries)

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints and probe.json holds."""
        figures = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "lead"}
        trial = self.lead.trial
        return {
            "passed": self.lead.passed,
            "verdict": self.lead.answer,
            "reason": self.lead.reason,
            "checks": [self.lead.as_json()],
            "fraction": self.share,
            "train_queries": trial.train_queries,
            "steps": trial.steps,
        } | figures


def probe_config(config: Config) -> Config:
    """The run that probes `config`.

    Raises:
        ConfigError: the name has no room for "-probe".
    """
    mining, distil = mining_settings(config, MINED), config.training.distil
    return with_settings(
        config,
        {
            "name": f"{config.name}-probe",
            "data.train_fraction": config.data.train_fraction * config.probe.fraction,
            "rounds.mined": 1,
            "rounds.merge": [],
            "rounds.compare_random": True,
            "training.epochs": 1,
            # neither arm may end before the other, so neither stops early
            "training.patience": max(1, config.rounds.warmup_epochs, config.training.patience),
            "evaluation.split": "dev",  # the test split must not decide what to run
            "evaluation.general": None,
            "evaluation.events": False,  # nor does a probe need what a full run logs
            "reranker": None,
            # a re-ranker of the run's own teaches no first mined round
            "mining": mining.model_dump(),
            "training.distil": None if distil is None or mining.teacher is None else distil.model_dump(),
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
        interval = in_worker(compare_arms, context, context.store, *per_query, trial.evaluation)
        ingested = context.need(Stage(Kind.INGEST)).figures
    result = ProbeResult(
        measure_lead(config, interval, ingested, steps=summary["random_arm"]["steps"]),
        mined=summary["rounds"][-1]["metrics"],
        random=summary["random_arm"]["metrics"],
        baseline=summary["baseline"],
        confidence=trial.evaluation.confidence,
        output=context.store.root,
        # of the stages themselves, whenever they ran
        seconds=round(sum({commit.key: commit.seconds["wall"] for commit in context.done.values()}.values()), 2),
    )
    context.store.write_json("probe.json", result.as_json())
    return result


def measure_lead(config: Config, share: Interval, ingested: dict[str, Any], *, steps: int) -> Lead:
    """The lead from the difference as a share.

    Args:
        ingested: figures of the probe's ingest stage. steps: optimizer steps of each arm.
    """
    used = int(ingested["splits"]["train"])
    trial = Trial(
        steps,
        used,
        used + int(ingested.get("train_queries_left_out", 0)),
        config.probe.fraction,
        config.training.batch_size,
        config.training.max_steps,
        dev_cut="dev_queries_cut_from_train" in ingested,
    )
    mean, low, high = (round(100 * value, 4) for value in (share.mean, share.low, share.high))
    interval = Interval(mean, low, high, share.queries)
    return Lead(config.evaluation.primary, mean, config.probe.min_lead, interval, trial)


def compare_arms(store: Store, mined: list[Part], random: list[Part], settings: EvaluationSettings) -> Interval:
    """Mined minus random in the primary figure, query by query. Runs in a worker."""
    of_mined, of_random = (read_parts(store, parts, ["query_row", settings.primary]) for parts in (mined, random))
    assert of_mined["query_row"].equals(of_random["query_row"]), "both arms are measured on the same queries"
    return paired_bootstrap(
        of_mined[settings.primary].to_numpy(),
        of_random[settings.primary].to_numpy(),
        resamples=settings.resamples,
        confidence=settings.confidence,
    )
