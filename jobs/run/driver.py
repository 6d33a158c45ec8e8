"""Starting a driver: storage checked, lease taken, Ray started, rounds run."""

from __future__ import annotations

import _thread
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cluster.commits import Commit, Ledger
from cluster.errors import ClusterError, ConfigError, HardmineError, one_paragraph, unwrap
from cluster.lease import Lease
from cluster.progress import Progress
from cluster.session import ray_session
from cluster.storage import Store, check_writable
from jobs.config.config import Config
from jobs.report.write import write_after_run
from jobs.run.rounds import finish_inputs, run_rounds
from jobs.stages.context import Context, Only, StageDone
from jobs.stages.stage_0_ingest import BESIDE, fingerprints, model_fingerprint

IDENTITY = "identity.json"


def run(config: Config, *, progress: Progress, takeover: bool = False) -> dict[str, Any]:
    """Run all rounds, going on from what is committed; returns the summary. A finished run returns at once."""
    store, prints = open_run(config)
    finished = _finished(config, store, prints)
    if finished is not None:
        _keep_gate(config, store)
        progress.say(f"{store.root} is finished: this is its result")
        return finished | {"report": write_after_run(store, progress, anew=False)}
    with run_context(config, store, prints, progress, takeover) as context:
        summary = run_rounds(context, prints)
    return summary | {"report": write_after_run(store, progress)}


def run_stage(
    config: Config,
    only: Only,
    *,
    progress: Progress,
    takeover: bool = False,
    drive: Callable[[Context, dict[str, Any]], object] = run_rounds,
    after: Callable[[Context, Commit], Any] = lambda _, commit: commit,
) -> Any:
    """Run one stage alone; returns its commit, or what `after` makes of it while the cluster is still there.

    Args:
        drive: runs the stages in their order, the wanted one among them.

    Raises:
        ConfigError: an earlier stage is missing.
    """
    store, prints = open_run(config)
    with run_context(config, store, prints, progress, takeover) as context:
        context.only = only
        try:
            drive(context, prints)
        except StageDone as done:
            return after(context, done.commit)
    raise ConfigError(
        f"{only.name} is not a stage of this run: it has {config.rounds.mined} mined round(s)"
        f"{' after a warm-up' if config.rounds.warmup_epochs else ' and no warm-up'}"
    )


def open_run(config: Config) -> tuple[Store, dict[str, Any]]:
    """(the run's store, fingerprints of the data), after checking both. Writes nothing that stays.

    Raises:
        ConfigError: the folder holds another run. DataError: a file is missing. ClusterError: the storage is away.
    """
    store = Store(config.root, config.storage)
    check_writable(store)
    prints = fingerprints(config) | {"model": model_fingerprint(config)}
    _refuse_other_run(config, store, prints)
    return store, prints


def _refuse_other_run(config: Config, store: Store, prints: dict[str, Any]) -> None:
    """Raises ConfigError: the folder holds stages on other data or of another base model.

    Only what is committed counts: data that was refused may be corrected, a model that was not found may be renamed.
    """
    if not store.exists(IDENTITY):
        return
    before, now, ledger = store.read_json(IDENTITY), _identity(config, prints), Ledger(store)
    for name, stage in (("data", "ingest"), ("encoder", "base")):
        if before.get(name) != now[name] and ledger.find(stage) is not None:
            raise ConfigError(
                f"{store.root} holds a run with another {name} ({_difference(before.get(name), now[name])}), "
                f"and its figures cannot be compared with this one's; choose another `name` or `output`, or "
                f"delete that folder"
            )


def _keep_gate(config: Config, store: Store) -> None:
    """What a finished run is judged by may still change; `hardmine gate` reads it in run.json."""
    wanted = config.evaluation.gate.model_dump(mode="json")
    found = store.read_json("run.json") if store.exists("run.json") else None
    if found is not None and found["config"]["evaluation"].get("gate") != wanted:
        found["config"]["evaluation"]["gate"] = wanted
        store.write_json("run.json", found)


def _identity(config: Config, prints: dict[str, Any]) -> dict[str, Any]:
    identity = {
        "data": {name: value for name, value in prints.items() if name not in BESIDE},
        "encoder": {"kind": config.encoder.kind, "model": prints["model"]},
    }
    # another general set changes no other figure: it is told here, but refuses nothing
    return identity | ({"general": prints["general"]} if "general" in prints else {})


def _difference(before: Any, now: Any) -> str:
    """The first key of two mappings whose values differ, for a person."""
    known = before if isinstance(before, dict) else {}
    changed = [key for key in {**known, **now} if known.get(key) != now.get(key)]
    if changed[0] == "kind":
        return f"its kind was {known.get('kind')!r}, is {now['kind']!r}"
    if changed[0] == "model":
        return "encoder.model is another one, or the files in its folder have changed"
    files = ", ".join({**(known.get(changed[0]) or {}), **(now.get(changed[0]) or {})})
    return f"the content of {files} differs"


def _finished(config: Config, store: Store, prints: dict[str, Any]) -> dict[str, Any] | None:
    ledger = Ledger(store)
    commit = ledger.find("finish")
    if commit is None:
        return None
    wanted = finish_inputs(config, prints)
    if any(commit.inputs.get(name) != value for name, value in wanted.items()):
        return None
    ledger.verify(commit)
    summary: dict[str, Any] = commit.figures["summary"]
    return summary


@contextmanager
def run_context(config: Config, store: Store, prints: dict[str, Any], progress: Progress, takeover: bool) -> Iterator[Context]:
    """The lease, Ray and everything a driver's stages need."""
    lease = Lease(store, takeover=takeover, on_lost=_thread.interrupt_main)  # not at the next commit, hours later
    with lease, _loss_explained(lease), ray_session(config.cluster) as size:
        store.write_json(IDENTITY, _identity(config, prints))
        progress.open_mailbox()
        ledger = Ledger(store, check_owner=lease.check)
        with _ray_errors_explained():
            yield Context(config, store, ledger, progress, size)


@contextmanager
def _loss_explained(lease: Lease) -> Iterator[None]:
    """Raises ClusterError: the interruption came from our own lease, which another driver has taken."""
    try:
        yield
    except KeyboardInterrupt:
        if lease.lost is None:
            raise
        lease.check()
        raise


@contextmanager
def _ray_errors_explained() -> Iterator[None]:
    """Raises ClusterError: an actor or task died more often than `cluster.retries` allows, or Ray itself failed."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        cause = unwrap(error)
        if isinstance(cause, HardmineError):
            raise cause from None
        raise ClusterError(_explain(cause)) from error


def _explain(error: BaseException) -> str:
    from ray.exceptions import RayTaskError

    while isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
        error = error.cause
    text = one_paragraph(re.sub(r"\x1b\[[0-9;]*m", "", str(error).split("Traceback", 1)[0]))[:300]
    went = f"a worker failed ({type(error).__name__}: {text})"
    if type(error).__module__.startswith("ray."):
        went += (
            "; a worker that dies without a message usually ran out of memory: lower cluster.part_rows, "
            "cluster.shard_rows or training.batch_size"
        )
    return f"{went}. What is committed is kept: the same command goes on from there"
