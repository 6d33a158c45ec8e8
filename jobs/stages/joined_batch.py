"""The batch of a run: queries of all ranks together in a step. The first training settles it, whatever the cluster is later."""

from __future__ import annotations

from jobs.record.plan import plan_run
from jobs.record.stages import Kind, ModelName, Stage
from jobs.stages.context import Context


def joined_batch(context: Context, rounds: int) -> int | None:
    """As the first of the run's rounds below `rounds` was trained under this training.batch_size; None: none was."""
    planned = {stage.name for stage in plan_run(context.config)}  # the folder may hold rounds that this configuration has not
    for number in range(rounds):
        name = Stage(Kind.TRAIN, ModelName(number)).name
        commit = context.ledger.find(name) if name in planned else None
        if commit is not None and commit.inputs["training"]["batch_size"] == context.config.training.batch_size:
            return int(commit.figures["joined_batch"])
    return None


def counted_ranks(context: Context, ranks: int) -> int:
    """The ranks that would have the run's batch at training.batch_size each, where it is settled; else those that are there."""
    batch = joined_batch(context, context.config.rounds.mined + 1)
    return -(-batch // context.config.training.batch_size) if batch else ranks
