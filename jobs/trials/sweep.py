"""`hardmine sweep`: temperature, share of random negatives and loss, tried on the negatives of a run's first round.

The run's own stages up to the mined negatives of round 1 are made or kept, as `hardmine mine --round 1` does; the trials
start from the model that round 1 would start from. What they leave are records of figures, no models.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.commits import digest
from cluster.errors import ConfigError
from cluster.progress import Progress
from cluster.resources import PoolSize, train_pool
from jobs.config.config import Config
from jobs.record.stages import BASELINE, Kind, ModelName, Stage
from jobs.run.driver import open_context
from jobs.stages.context import Context
from jobs.stages.stage_4_train import refuse_local_output, training_task
from jobs.trials.sweep_plan import Record, Trial, best_toml, choose, plan_trials, summarise, trial_settings
from jobs.trials.sweep_trial import Job
from training.engine.schedule import Schedule
from training.settings import TrainingSettings

ROUND = ModelName(1)
"""The round that the trials stand for."""


def check_out(path: Path, *, force: bool) -> None:
    """Raises ConfigError: the file is there already, or cannot be."""
    if path.exists() and not force:
        raise ConfigError(f"{path} is there already; give another file with --out, or --force to replace it")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"--out: there is no folder {path.absolute().parent} for {path.name}; make it, or give another file")


def sweep(config: Config, *, out: Path, force: bool, progress: Progress, takeover: bool = False) -> dict[str, Any]:
    """Try all combinations, write the chosen configuration to `out`; returns what `--json` prints.

    Raises:
        ConfigError: `out` is there already, nothing is mined in this run, or a combination is not possible.
        DataError: no dev query has a relevant item.
        TrainingDiverged: every trial diverged.
    """
    check_out(out, force=force)
    if not config.rounds.mined:
        raise ConfigError("a sweep trains on the negatives that are mined for round 1, but rounds.mined = 0; set it to 1 or more")
    trials = plan_trials(config)
    settings = [trial_settings(config, trial) for trial in trials]
    stage = Stage(Kind.REPORT, ROUND)
    with open_context(config, progress=progress, takeover=takeover) as context:
        context.need(Stage(Kind.EVALUATE, BASELINE))
        context.need(stage)
        pool = train_pool(config.cluster, context.size)
        records = _run(context, make_job(context, settings, pool), trials, pool)
    choice = choose(trials, records, resamples=config.evaluation.resamples, confidence=config.evaluation.confidence)
    result = {"output": config.root, **summarise(config, trials, records, choice), "out": str(out)}
    out.write_text(best_toml(config, result), encoding="utf-8")
    return result


def make_job(context: Context, settings: list[TrainingSettings], pool: PoolSize) -> Job:
    """Round 1's training as trials on one rank each.

    Raises:
        ConfigError: trials on several nodes could not all reach a local folder.
    """
    refuse_local_output(context)
    config = context.config
    task, inputs = training_task(context, ROUND, pool)
    task = replace(task, schedule=Schedule(config.sweep.epochs), name=f"{config.name} sweep")
    # all that a trial depends on beside its settings: an earlier sweep's trials on the same are found again
    inputs |= {"gpu": bool(pool.gpus)}
    return Job(context.store, f"sweep/{digest(inputs)}", task, settings, bool(pool.gpus))


def _run(context: Context, job: Job, trials: list[Trial], pool: PoolSize) -> list[Record]:
    from jobs.trials.sweep_tune import run_trials

    say = context.progress.say
    open_ones = {number for number in range(len(trials)) if job.find(number) is None}
    say(
        f"· sweep: {len(trials)} trials of at most {context.config.sweep.epochs} epochs, "
        f"{len(trials) - len(open_ones)} of them kept"
    )
    if pool.count > 1:
        say(
            f"! a trial trains on one rank, in batches of {context.config.training.batch_size}; the run's {pool.count} ranks "
            f"see {pool.count} times as many in-batch negatives, so its best temperature may be another"
        )

    def on_end(number: int, record: Record) -> None:
        if number in open_ones:  # once, though another attempt of Tune's tells its scheduler all of them again
            open_ones.discard(number)
            recall = "–" if record.recall is None else f"{record.recall:.4f}"
            say(
                f"✓ trial {number:<3} {trials[number].describe():44} recall {recall}  {record.state} after "
                f"{len(record.recalls)} epoch(s), {record.seconds:.1f} s"
            )

    if open_ones:
        with context.progress.watch("sweep"):
            run_trials(job, pool, retries=context.config.cluster.retries, on_end=on_end)
        for leftover in ("running", "tune"):  # what trials and Tune wrote to be able to go on
            context.store.delete(f"{job.folder}/{leftover}")
    return [job.close(number) for number in range(len(trials))]
