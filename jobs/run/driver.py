"""The driver of a run: checks the storage, takes the lease, starts Ray, runs the stages."""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from cluster.commits import Commit, Ledger
from cluster.errors import COLOUR, ClusterError, ConfigError, DamagedObject, HardmineError, one_paragraph, root_cause
from cluster.lease import Lease
from cluster.session.gpus import check_gpus
from cluster.session.nodes import Nodes
from cluster.session.progress import Progress
from cluster.session.resources import ClusterSize, uses_gpu
from cluster.session.session import check_shared, ray_session
from cluster.storage.records import read_if_there, read_record, write_record
from cluster.storage.store import Store
from cluster.storage.usable import check_reachable, check_writable
from jobs.config.config import Config
from jobs.finished.next_steps import read_next_steps
from jobs.record.origin import IDENTITY, write_config
from jobs.record.plan import plan_run
from jobs.record.stages import BASELINE, Kind, ModelName, Second, Stage
from jobs.record.summary import summary_of
from jobs.report.write import write_after_run
from jobs.run.identity import identity_json, refuse_other_run
from jobs.run.rounds import FUNCTIONS, refuse_unreached, run_rounds
from jobs.stages.context import Context, Makes, may_make
from jobs.stages.finish.finish import finish_inputs
from jobs.stages.ingest.fingerprints import fingerprints, model_fingerprint
from jobs.stages.stage_4_train import start_ranks

PREPARING = frozenset({Kind.INGEST, Kind.BASE, Kind.TOKENS, Kind.SEQUENCE, Kind.EMBED})
SEARCHING = frozenset({Kind.SEARCH, Kind.SOURCE, Kind.PAIRS, Kind.SCORE, Kind.HITS})
MAKES: Mapping[Kind, Makes] = {
    Kind.SEARCH: PREPARING | {Kind.EVALUATE},
    Kind.REPORT: PREPARING
    | SEARCHING
    | {Kind.NEAR, Kind.TEACHER_PAIRS, Kind.TEACHER_SCORES, Second.TEACHER, Kind.MINE, Kind.REPORT, Kind.EVALUATE},
    Kind.TRAIN: PREPARING | {Kind.REPORT, Second.GUIDE},
    Kind.EVALUATE: PREPARING | SEARCHING | {Kind.REPORT, Kind.EVENTS},
    Kind.EMBED: PREPARING,
}
"""A stage that is requested alone -> the kinds of earlier stages that run first if they are missing."""


def run(config: Config, *, progress: Progress, takeover: bool = False) -> dict[str, Any]:
    """Run all rounds, resuming from what is committed; returns the summary. A finished run returns at once."""
    store, prints = open_run(config)
    finished, damaged = None, None
    try:
        finished = _finished(config, store, prints)
    except DamagedObject as error:
        damaged = error
    if finished is not None:
        _keep_gate(config, store)
        progress.say(f"{store.root} is finished; this is its result")
        return _with_next(finished, store) | {"report": write_after_run(store, progress, overwrite=False)}
    with open_context(config, progress=progress, takeover=takeover) as context:
        if damaged is not None:
            context.ledger.set_aside(damaged)
        start_ranks(context)
        summary = context.until_whole(run_rounds)
    return _with_next(summary, store) | {"report": write_after_run(store, progress)}


def _with_next(summary: dict[str, Any], store: Store) -> dict[str, Any]:
    steps = read_next_steps(store, summary["primary"])
    return summary | {"next": [step.as_json() for step in steps]}


def run_stage(config: Config, stage: Stage, *, progress: Progress, takeover: bool = False) -> Commit:
    """Run one stage of a run alone.

    Raises:
        ConfigError: the run has no such stage, or an earlier one is missing.
    """
    refuse_out_of_order(config, stage, MAKES[stage.kind])
    with open_context(config, progress=progress, takeover=takeover, alone=stage) as context:
        refuse_unreached(context, stage)
        return context.until_whole(lambda context: context.need(stage))


def refuse_out_of_order(config: Config, stage: Stage, makes: Makes) -> None:
    """Check that a stage can run now, before the data is read or Ray starts.

    Args:
        makes: kinds of earlier stages that may run first.

    Raises:
        ConfigError: the run has no such stage, or an earlier one is neither committed nor in `makes`.
        ClusterError: the storage does not answer.
    """
    plan = plan_run(config)
    _refuse_unknown(config, stage, plan)
    store = Store(config.root, config.storage)
    check_writable(store)
    committed = Ledger(store).names()
    for before in plan[: plan.index(stage)]:
        if not before.optional and not may_make(before, makes) and before.name not in committed:
            raise ConfigError(
                f"{stage.name} needs {before.name}, which is not committed in {config.root}; run the earlier stages "
                f"first ({before.name} is the first missing one), or all of them with `hardmine run`"
            )


def _refuse_unknown(config: Config, stage: Stage, plan: Sequence[Stage]) -> None:
    if stage in plan:
        return
    numbers = sorted(
        other.of.round
        for other in plan
        if isinstance(other.of, ModelName) and not other.of.random and other == Stage(stage.kind, other.of)
    )
    gapless = len(numbers) > 1 and numbers[-1] - numbers[0] == len(numbers) - 1
    rounds = f"{numbers[0]} to {numbers[-1]}" if gapless else ", ".join(map(str, numbers)) or "none"
    raise ConfigError(
        f"{stage.name} is not a stage of this run: expected a --round of {rounds} (rounds.warmup_epochs = "
        f"{config.rounds.warmup_epochs}, rounds.mined = {config.rounds.mined}; "
        f"round 0 mines nothing); choose another round, or change [rounds]"
    )


def embed_round(config: Config, model: ModelName, *, progress: Progress, takeover: bool = False) -> Commit:
    """Embed with a model of the run. Raises ConfigError: the run has no such round, or has not trained it."""
    trained, stage = model.source, Stage(Kind.EMBED, model)
    if model != BASELINE:
        _refuse_unknown(config, stage, plan_run(config))
        store = Store(config.root, config.storage)
        check_writable(store)
        if Ledger(store).find(trained.name) is None:
            raise ConfigError(
                f"there is no model of round {model.round} yet: {trained.name} is not committed in {config.root}; run "
                + (f"`hardmine train` with --round {model.round} first" if not model.share else "`hardmine run` first")
            )
    with open_context(config, progress=progress, takeover=takeover, alone=stage) as context:
        return context.need(stage)


def open_run(config: Config, *, writes: bool = True) -> tuple[Store, dict[str, Any]]:
    """Check the storage and the data; returns (the run's store, fingerprints of data and model).

    Args:
        writes: try to write to the storage, too; else nothing is written, and no folder made.

    Raises:
        ConfigError: the folder holds another run. DataError: a file is missing. ClusterError: the storage does not answer.
    """
    store = Store(config.root, config.storage)
    (check_writable if writes else check_reachable)(store)
    prints = fingerprints(config) | {"model": model_fingerprint(config)}
    refuse_other_run(config, store, prints)
    return store, prints


@contextmanager
def open_context(
    config: Config, *, progress: Progress, takeover: bool = False, alone: Stage | None = None, trains: bool = True
) -> Iterator[Context]:
    """Take the lease, start Ray, and give the stages what they need.

    Args:
        alone: the requested stage; None: every stage may run.
        trains: whether training and evaluation follow.

    Raises:
        ConfigError: the folder holds another run. DataError: a file is missing. ClusterError: storage or cluster does not answer.
    """
    progress.run = config.name
    store, prints = open_run(config)
    makes = None if alone is None else MAKES[alone.kind] | {alone}
    # a lost lease is noticed at once, not at the next commit hours later
    lease = Lease(store, takeover=takeover, on_lost=_thread.interrupt_main, now=progress.now)
    with lease, _loss_explained(lease), _heard(lease), ray_session(config.cluster), _ray_errors_explained():
        store.sweep()
        nodes = Nodes(config.cluster, progress.say, partial(_check_nodes, config, store))
        size = nodes.now()
        progress.say(f"  {size.describe()}; {_device(config, size)}")
        write_record(store, IDENTITY, identity_json(config, prints))
        if trains:  # mining alone does not change what the run is
            write_config(config, store)
        progress.open_mailbox()
        ledger = Ledger(store, check_owner=lease.check, say=progress.say)
        yield Context(config, store, ledger, progress, size, prints, FUNCTIONS, makes, trains, nodes.now)


def _check_nodes(config: Config, store: Store, size: ClusterSize) -> None:
    """Raises ConfigError or ClusterError: a node does not see the run's folder, or torch cannot use its GPU."""
    check_shared(store, size)
    if uses_gpu(config.cluster, size):
        check_gpus()


def _device(config: Config, size: ClusterSize) -> str:
    chosen = "GPUs" if uses_gpu(config.cluster, size) else "CPUs"
    return f'models run on {chosen} (cluster.device = "{config.cluster.device}")'


def _keep_gate(config: Config, store: Store) -> None:
    """Update the gate's thresholds of a finished run, which `hardmine gate` reads from run.json."""
    thresholds = config.evaluation.gate.model_dump(mode="json")
    run = read_record(store, "run.json")
    if run["config"]["evaluation"].get("gate") != thresholds:
        run["config"]["evaluation"]["gate"] = thresholds
        write_record(store, "run.json", run)


def _finished(config: Config, store: Store, prints: dict[str, Any]) -> dict[str, Any] | None:
    """The summary of a run that needs nothing more, every byte of its model checked. Raises DamagedObject."""
    ledger = Ledger(store)
    commit = ledger.find(Stage(Kind.FINISH).name)
    if commit is None:
        return None
    if any(commit.inputs.get(name) != value for name, value in finish_inputs(config, prints).items()):
        return None
    ledger.verify(commit, content=True)
    return summary_of(commit, store) if read_if_there(store, "run.json") else None


@contextmanager
def _loss_explained(lease: Lease) -> Iterator[None]:
    """Raises ClusterError: our own lease interrupted the driver, because another driver took it."""
    try:
        yield
    except KeyboardInterrupt:
        if lease.lost is None:
            raise
        lease.check()
        raise


@contextmanager
def _heard(lease: Lease) -> Iterator[None]:
    """In the background of a shell SIGINT is ignored and `interrupt_main` does nothing: there a lost lease is heard, too."""

    def hear(*_: object) -> None:
        if lease.lost is not None:
            raise KeyboardInterrupt

    deaf = signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread()
    if deaf:
        signal.signal(signal.SIGINT, hear)
    try:
        yield
    finally:
        if deaf:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _ray_errors_explained() -> Iterator[None]:
    """Raises ClusterError: Ray failed in a way that no stage outlasts."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        cause = root_cause(error)
        if isinstance(cause, HardmineError):
            raise cause from None
        text = one_paragraph(COLOUR.sub("", str(error)).split("Traceback", 1)[0])[:300]
        raise ClusterError(
            f"Ray failed ({type(cause).__name__}: {text}); what is committed is kept: the same command resumes"
        ) from error
