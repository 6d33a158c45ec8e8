"""`hardmine sweep`: temperature, share of random negatives and loss, tried on the negatives of a run's first round.

The run's own stages up to the mined negatives of round 1 are made or kept, as `hardmine mine --round 1` does; the trials
start from the model that round 1 would start from. What they leave are records of figures, no models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster.commits import Commit, digest
from cluster.errors import ArtifactError, ConfigError
from cluster.progress import Progress
from cluster.resources import PoolSize, train_pool
from eval.verdict import decide_epochs
from jobs.config.config import Config
from jobs.run.driver import run_stage
from jobs.run.mine_alone import MADE
from jobs.run.rounds import run_rounds
from jobs.stages.context import Context, Only
from jobs.stages.ingested import Ingested
from jobs.stages.stage_0_ingest import ingest
from jobs.stages.stage_1_embed import feature_parts, start_model, trained_model
from jobs.stages.train_guide import guide_vectors
from jobs.trials.sweep_plan import Record, Trial, best_toml, choose, plan_trials, summarise, trial_settings
from jobs.trials.sweep_trial import Job
from training.engine.deepspeed_config import read_deepspeed
from training.settings import TrainingSettings
from training.task import TrainTask

LAST_STAGE = "round-01-report"


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
    seen: list[Ingested] = []

    def drive(context: Context, prints: dict[str, Any]) -> None:
        context.only, only = None, context.only  # the data must do for a whole run, dev queries among it
        seen.append(ingest(context, prints))
        context.only = only
        run_rounds(context, prints)

    def after(context: Context, _: Commit) -> list[Record]:
        pool = train_pool(config.cluster, context.size)
        job = make_job(context, seen[0], settings, pool)
        return _run(context, job, trials, pool)

    records: list[Record] = run_stage(
        config,
        Only(LAST_STAGE, MADE | {"evaluate", "train", "guide"}),
        progress=progress,
        takeover=takeover,
        drive=drive,
        after=after,
    )
    choice = choose(trials, records, resamples=config.evaluation.resamples, confidence=config.evaluation.confidence)
    result = {"output": config.root, **summarise(config, trials, records, choice), "out": str(out)}
    out.write_text(best_toml(config, result), encoding="utf-8")
    return result


def make_job(context: Context, ingested: Ingested, settings: list[TrainingSettings], pool: PoolSize) -> Job:
    """Round 1's training as trials on one rank each.

    Raises:
        ConfigError: trials on several nodes could not all reach a local folder.
    """
    config = context.config
    if not context.store.remote and context.size.nodes > 1:
        raise ConfigError(
            f"output is the local folder {config.output}, but the cluster has {context.size.nodes} nodes that "
            f"cannot all write there; use s3://"
        )
    mined, hits = (_committed(context, name) for name in ("round-01-mine", "baseline-hits"))
    model = start_model(ingested)
    if config.rounds.warmup_epochs:
        model = trained_model(_committed(context, "round-00-train"), model)
    items, queries, source = feature_parts(context, ingested, of_base=model.reads_base)
    guide = guide_vectors(context, ingested)
    own = read_deepspeed(config.training.deepspeed) if config.training.deepspeed else None
    task = TrainTask(
        store=context.store,
        folder="",
        kind=config.encoder.kind,
        model=model.files,
        model_prefix=model.prefix,
        corpus=ingested.corpus,
        queries=ingested.queries,
        item_features=items,
        query_features=queries,
        labels=ingested.labels,
        negatives=mined.parts("negatives"),
        near_misses=hits.parts("hits"),
        settings=config.training,
        epochs=config.sweep.epochs,
        seed=config.rounds.seed,
        round=1,
        threads=pool.cpus,
        budget_tokens=config.cluster.micro_batch_tokens,
        mailbox=context.progress.mailbox,
        deepspeed=own,
        guide_items=guide.parts("corpus") if guide else [],
        guide_queries=guide.parts("queries") if guide else [],
        name=f"{config.name} sweep",
        stopping=decide_epochs,
    )
    # all that a trial depends on beside its settings: an earlier sweep's trials on the same are found again
    inputs = {
        "model": model.digest,
        "features": source,
        "negatives": mined.key,
        "near_misses": hits.inputs["vectors"],
        "seed": config.rounds.seed,
        "budget": config.cluster.micro_batch_tokens,
        "gpu": bool(pool.gpus),
        "guide": guide.key if guide else None,
        "deepspeed": own,
    }
    return Job(context.store, f"sweep/{digest(inputs)}", task, settings, bool(pool.gpus))


def _committed(context: Context, name: str) -> Commit:
    commit = context.ledger.find(name)
    if commit is None:
        raise ArtifactError(
            f"{name} was committed a moment ago and is gone from {context.store.root}; something outside "
            f"hardmine changed it: run the same command again"
        )
    return commit


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
            run_trials(
                job,
                pool,
                reduction_factor=context.config.sweep.reduction_factor,
                retries=context.config.cluster.retries,
                on_end=on_end,
            )
        for leftover in ("running", "tune"):  # what trials and Tune wrote to be able to go on
            context.store.delete(f"{job.folder}/{leftover}")
    return [job.close(number) for number in range(len(trials))]
