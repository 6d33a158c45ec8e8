"""Starting a driver: storage checked, lease taken, Ray started, rounds run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cluster.commits import Ledger
from cluster.errors import ClusterError, ConfigError, HardmineError, one_paragraph, unwrap
from cluster.lease import Lease
from cluster.progress import Progress
from cluster.session import ray_session
from cluster.storage import Store, check_writable
from jobs.config import Config
from jobs.context import Context, Only, StageDone
from jobs.rounds import finish_inputs, run_rounds
from jobs.stage_0_ingest import fingerprints


def run(config: Config, *, progress: Progress, takeover: bool = False) -> dict[str, Any]:
    """Run all rounds, going on from what is committed; returns the summary. A finished run returns at once."""
    store, prints = open_run(config)
    finished = _finished(config, store, prints)
    if finished is not None:
        progress.say(f"{store.root} is finished: this is its result")
        return finished
    with run_context(config, store, progress, takeover) as context:
        return run_rounds(context, prints)


def run_stage(config: Config, only: Only, *, progress: Progress, takeover: bool = False) -> Any:
    """Run one stage alone; returns its commit.

    Raises:
        ConfigError: an earlier stage is missing.
    """
    store, prints = open_run(config)
    with run_context(config, store, progress, takeover) as context:
        context.only = only
        try:
            run_rounds(context, prints)
        except StageDone as done:
            return done.commit
    raise ConfigError(f"{only.name} is not a stage of this run: it has {config.rounds.mined} mined round(s)"
                      f"{' after a warm-up' if config.rounds.warmup_epochs else ' and no warm-up'}")


def open_run(config: Config) -> tuple[Store, dict[str, Any]]:
    store = Store(config.root, config.storage)
    check_writable(store)
    prints = fingerprints(config)
    _refuse_other_run(config, store, prints)
    return store, prints


def _refuse_other_run(config: Config, store: Store, prints: dict[str, Any]) -> None:
    """Raises ConfigError: the folder holds a run on other data or with another base model."""
    if not store.exists("identity.json"):
        store.write_json("identity.json", _identity(config, prints))
        return
    before, now = store.read_json("identity.json"), _identity(config, prints)
    for name in now:
        if before.get(name) != now[name]:
            raise ConfigError(f"{store.root} holds a run with another {name} ({_short(before.get(name))} then, "
                              f"{_short(now[name])} now), and its figures cannot be compared with this one's; choose "
                              f"another `name` or `output`, or delete that folder")


def _identity(config: Config, prints: dict[str, Any]) -> dict[str, Any]:
    return {"data": prints, "encoder": {"kind": config.encoder.kind, "model": config.encoder.model}}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 90 else text[:87] + "…"


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
def run_context(config: Config, store: Store, progress: Progress, takeover: bool) -> Iterator[Context]:
    with Lease(store, takeover=takeover) as lease, ray_session(config.cluster) as size:
        progress.open_mailbox()
        ledger = Ledger(store, check_owner=lease.check)
        with _ray_errors_explained():
            yield Context(config, store, ledger, progress, size)


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
        raise ClusterError(
            f"Ray gave up on a worker ({type(cause).__name__}: {one_paragraph(str(cause))[:500]}); a worker that is killed "
            f"without a message usually ran out of memory: lower cluster.part_rows, cluster.shard_rows or "
            f"training.batch_size. What is committed is kept: the same command goes on from there") from error
