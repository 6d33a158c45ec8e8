"""Stage 4: one round of training on the mined (or only random) negatives."""

from __future__ import annotations

from cluster.commits import Commit, Outcome
from cluster.errors import ArtifactError, ConfigError
from cluster.resources import train_pool
from eval.verdict import decide_epochs
from jobs.stages.context import Context
from jobs.stages.ingested import Ingested
from jobs.stages.stage_1_embed import Model, feature_parts
from jobs.stages.train_guide import guide_vectors
from training.engine.deepspeed_config import read_deepspeed
from training.task import TrainTask
from training.telemetry.telemetry import telemetry_files
from training.trainer import train

BESIDE = {"trackers", "checkpoint_steps", "keep_checkpoints"}
"""Settings of training that change no weight."""


def train_round(
    context: Context,
    ingested: Ingested,
    model: Model,
    *,
    name: str,
    number: int,
    negatives: Commit | None,
    near_misses: Commit | None,
    epochs: int,
    cycles: int = 1,
    steps: int | None = None,
) -> Commit:
    """Train `model` for one round.

    Args:
        negatives: the mined ones; None: random ones only.
        near_misses: hits of dev queries under an earlier model, which make validation hard.
        cycles: equal learning-rate cycles (the random arm trains several rounds in one go).
        steps: most optimizer steps of all cycles together; None: what the settings say.
    """
    config = context.config
    pool = train_pool(config.cluster, context.size)
    if pool.count > 1 and not context.store.remote and context.size.nodes > 1:
        raise ConfigError(
            f"output is the local folder {config.output}, but the cluster has {context.size.nodes} nodes that "
            f"cannot all write there; use s3://"
        )
    items, queries, source = feature_parts(context, ingested, of_base=model.reads_base)
    guide = guide_vectors(context, ingested)
    own = read_deepspeed(config.training.deepspeed) if config.training.deepspeed else None

    def work(folder: str) -> Outcome:
        task = TrainTask(
            store=context.store,
            folder=folder,
            kind=config.encoder.kind,
            model=model.files,
            model_prefix=model.prefix,
            corpus=ingested.corpus,
            queries=ingested.queries,
            item_features=items,
            query_features=queries,
            labels=ingested.labels,
            negatives=negatives.parts("negatives") if negatives else [],
            near_misses=near_misses.parts("hits") if near_misses else [],
            settings=config.training,
            epochs=epochs,
            cycles=cycles,
            steps=steps,
            seed=config.rounds.seed,
            round=number,
            threads=pool.cpus,
            budget_tokens=config.cluster.micro_batch_tokens,
            mailbox=context.progress.mailbox,
            deepspeed=own,
            guide_items=guide.parts("corpus") if guide else [],
            guide_queries=guide.parts("queries") if guide else [],
            name=f"{config.name} {name}",
            stopping=decide_epochs,
        )
        result = train(task, pool, retries=config.cluster.retries)
        for note in result["notes"]:
            context.progress.say(f"  {note}")
        telemetry = telemetry_files(context.store, folder)
        if not telemetry:
            raise ArtifactError(f"{context.store.url(folder)} holds no telemetry; run the same command again")
        for leftover in ("engine", "ray"):  # the engine's state and Ray Train's notes served resuming only
            context.store.delete(f"{folder}/{leftover}")
        files = dict(result["best"]["model"]) | telemetry
        figures = {key: value for key, value in result.items() if key != "best"}
        figures |= {
            "best_epoch": result["best"]["epoch"],
            "best_recall": result["best"]["recall"],
            "prefix": result["best"]["prefix"],
            "negatives": "mined" if negatives else "random",
        }
        return Outcome(files=files, figures=figures, work_seconds=result["seconds"])

    inputs = {
        "model": model.digest,
        "features": source,
        "tables": ingested.tables.key,
        "epochs": epochs,
        "cycles": cycles,
        "negatives": negatives.key if negatives else None,
        "steps": steps,
        "near_misses": near_misses.inputs["vectors"] if near_misses else None,
        # a file of DeepSpeed settings counts by its content
        "training": config.training.model_dump(exclude=BESIDE) | {"deepspeed": own},
        "guide": guide.key if guide else None,
        "seed": config.rounds.seed,
        "round": number,
        "ranks": pool.count,
        "budget": config.cluster.micro_batch_tokens,
    }
    return context.stage("train", name, folder=f"rounds/{number:02d}/{name.rsplit('-', 1)[-1]}", inputs=inputs, work=work)
