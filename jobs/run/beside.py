"""A training and the mining that runs beside it: two stages at once, until both have ended.

The training stays in the driver's own thread, where Ctrl-C and a lost lease reach it. What runs beside it has a thread of its
own, and reads only what was committed before: the two share no stage.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace

from cluster.errors import unwrap
from cluster.session.nodes import cluster_size, left_of
from cluster.session.resources import ClusterSize, train_pool
from jobs.record.stages import Kind, ModelName, Scope, Stage
from jobs.stages.chosen import rule_on
from jobs.stages.context import Context, size_for

START_S = 120.0
"""How long mining waits for the training to have its processors, of which many small tasks would leave none."""
LOOK_S = 0.5
"""How often the driver's thread looks for Ctrl-C while it waits."""


def need_beside(context: Context, training: Stage, stages: Sequence[Stage]) -> ModelName | None:
    """A training, and some stages in order beside it; returns as `need_each` does for those.

    Raises:
        HardmineError or another error of one of them, once the other one has ended its stage: what it finished is committed.
    """
    size = context.look() if context.look else context.size
    trained, stop = threading.Event(), threading.Event()
    ended, errors = list[ModelName | None](), list[BaseException]()
    with context.progress.beside() as voice:
        # neither waits for the whole cluster to be free
        first = replace(context, size=size, look=lambda: left_of(size))
        second = replace(first, progress=voice)

        def mine() -> None:
            try:
                _await_ranks(context, training, size, trained)
                ended.append(need_each(second, stages, stop))
            except BaseException as error:
                errors.append(error)
                if not trained.is_set() and not stop.is_set():
                    context.progress.say(f"! {unwrap(error)}; the run ends when {training.name} does")

        thread = threading.Thread(target=mine, name="beside", daemon=True)
        thread.start()
        try:
            first.need(training)
        except Exception as error:
            stop.set()
            if thread.is_alive():
                context.progress.say(f"! {unwrap(error)}; the run ends when {voice.stage or 'the stage beside it'} does")
            _join(thread)
            raise
        except BaseException:  # Ctrl-C: nobody waits
            stop.set()
            raise
        trained.set()
        try:
            _join(thread)
        except BaseException:
            stop.set()
            raise
    if errors:
        raise errors[0]
    return ended[0]


def _join(thread: threading.Thread) -> None:
    while thread.is_alive():
        thread.join(LOOK_S)


def _await_ranks(context: Context, training: Stage, size: ClusterSize, trained: threading.Event) -> None:
    """Return when the training holds its processors, or has ended."""
    if context.ledger.find(training.name) is not None:  # most likely taken from its commit
        trained.wait(LOOK_S)
    pool = train_pool(context.config.cluster, size_for(context.config, training, size))
    deadline = time.monotonic() + START_S
    while cluster_size(free=True).cpus > size.cpus - pool.count * pool.cpus and time.monotonic() < deadline:
        if trained.wait(0.1):
            return


def need_each(context: Context, stages: Sequence[Stage], stop: threading.Event | None = None) -> ModelName | None:
    """Some stages one after another, until `stop`.

    Returns:
        The round after which mining no longer helps: the stages after its evaluation are left; None: it helps.
    """
    for stage in stages:
        if stop is not None and stop.is_set():
            return None
        context.need(stage)
        model = mined_model(stage)
        if model is not None and (ruling := rule_on(context, model)).stops:
            context.progress.say(f"! {ruling.reason}")
            return model
    return None


def mined_model(stage: Stage) -> ModelName | None:
    """The mined round that ends with this stage; None: no round does."""
    if stage.kind is not Kind.EVALUATE or stage.scope is not Scope.RUN or not isinstance(stage.of, ModelName):
        return None
    return stage.of if stage.of.round > 0 and not stage.of.random and not stage.of.share else None
