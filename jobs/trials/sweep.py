"""`hardmine sweep`: tries temperatures, shares of random negatives and losses on the negatives of a run's first round.

It runs the stages up to the mined negatives of round 1 (or takes them from their commits), as `hardmine mine --round 1`
does. The trials start from the model that round 1 would start from. They leave figures, no models.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.commits import digest
from cluster.errors import ConfigError
from cluster.session.progress import Progress
from cluster.session.resources import PoolSize, train_pool
from jobs.config.config import Config
from jobs.record.stages import BASELINE, Kind, ModelName, Stage
from jobs.run.driver import open_context
from jobs.stages.context import Context
from jobs.stages.stage_4_train import training_task
from jobs.trials.sweep_plan import Trial, TrialRecord, best_toml, choose_trial, plan_trials, sweep_json, trial_settings
from jobs.trials.sweep_trial import Job
from training.engine.schedule import Schedule
from training.settings import TrainingSettings

ROUND = ModelName(1)
"""The round that the trials try out."""


def check_out(path: Path, *, force: bool) -> None:
    """Raises ConfigError: the file exists already, or its folder does not."""
    if path.exists() and not force:
        raise ConfigError(f"{path} exists already; name another file with --out, or overwrite it with --force")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"--out: there is no folder {path.absolute().parent} for {path.name}; create it, or name another file")


def sweep(config: Config, *, out: Path, force: bool, progress: Progress, takeover: bool = False) -> dict[str, Any]:
    """Try all combinations and write the chosen configuration to `out`, if it is another one; returns what `--json` prints.

    Raises:
        ConfigError: `out` exists already, nothing is mined in this run, or a combination is not possible.
        DataError: no dev query has a relevant item.
        TrainingDiverged: every trial diverged.
    """
    check_out(out, force=force)
    if not config.rounds.mined:
        raise ConfigError("a sweep trains on the mined negatives of round 1, but rounds.mined = 0; set it to 1 or more")
    trials = plan_trials(config)
    settings = [trial_settings(config, trial) for trial in trials]
    stage = Stage(Kind.REPORT, ROUND)
    with open_context(config, progress=progress, takeover=takeover) as context:
        context.need(Stage(Kind.EVALUATE, BASELINE))
        context.need(stage)
        pool = train_pool(config.cluster, context.size)
        records = _run(context, make_job(context, settings, pool), trials, pool)
    choice = choose_trial(trials, records, resamples=config.evaluation.resamples, confidence=config.evaluation.confidence)
    if choice.number:
        out.write_text(best_toml(config, trials, records, choice), encoding="utf-8")
    return {"output": config.root, **sweep_json(config, trials, records, choice), "out": str(out) if choice.number else None}


def make_job(context: Context, settings: list[TrainingSettings], pool: PoolSize) -> Job:
    """The training of round 1, as trials on one rank each."""
    config = context.config
    task, inputs = training_task(context, ROUND, pool)
    task = replace(task, schedule=Schedule(config.sweep.epochs), name=f"{config.name} sweep")
    # all that a trial depends on besides its settings: the trials of an earlier sweep on the same inputs are found again
    inputs |= {"gpu": bool(pool.gpus)}
    return Job(context.store, f"sweep/{digest(inputs)}", task, settings, bool(pool.gpus))


def _run(context: Context, job: Job, trials: list[Trial], pool: PoolSize) -> list[TrialRecord]:
    from jobs.trials.sweep_tune import run_trials

    say = context.progress.say
    unfinished = {number for number in range(len(trials)) if job.find(number) is None}
    say(
        f"· sweep: {len(trials)} trials of at most {context.config.sweep.epochs} epochs, "
        f"{len(trials) - len(unfinished)} of them kept"
    )
    if pool.count > 1:
        say(
            f"! a trial trains on one rank, in batches of {context.config.training.batch_size}; the run's {pool.count} ranks "
            f"see {pool.count} times as many in-batch negatives, so its best temperature may be another"
        )

    def on_end(number: int, record: TrialRecord) -> None:
        if number in unfinished:  # once: another attempt of Tune reports all of them to its scheduler again
            unfinished.discard(number)
            recall = "–" if record.recall is None else f"{record.recall:.4f}"
            say(
                f"✓ trial {number:<3} {trials[number].describe():44} recall {recall}  {record.state} after "
                f"{len(record.recalls)} epoch(s), {record.seconds:.1f} s"
            )

    if unfinished:
        with context.progress.watch("sweep"):
            run_trials(job, pool, retries=context.config.cluster.retries, on_end=on_end)
        for leftover in ("running", "tune"):  # what trials and Tune wrote to be able to resume
            context.store.delete(f"{job.folder}/{leftover}")
    return [job.close(number) for number in range(len(trials))]
