"""Which stages a run would keep and which it would make: asked of the stages themselves, whose keys say it. Makes nothing.

Every stage works out what it depends on and asks its context for a commit. Here the context only looks: a commit with the
same key is kept, anything else would be made, and so would whatever needs it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.commits import Commit, Ledger, Outcome, key_of
from cluster.errors import ArtifactError, DamagedObject
from cluster.session.progress import Progress
from cluster.session.resources import ClusterSize
from cluster.storage.store import Store
from jobs.config.config import Config
from jobs.record.plan import plan_run, trains_teacher
from jobs.record.stages import Chosen, Kind, Scope, Stage
from jobs.run.beside import mined_model
from jobs.run.rounds import FUNCTIONS, plan_after
from jobs.stages.chosen import rule_on
from jobs.stages.context import Context
from jobs.stages.finish.finish import finish_of

RAY_SHARE = 0.6
"""Of the memory of a machine, what Ray lets tasks use, about."""
AFTER_ROUNDS = (Kind.RERANKER_PAIRS, Kind.RERANK, Kind.RERANKED, Kind.FINISH)
"""Kinds of stages that are of the best model."""
MANY_CPUS = 4096
"""Of a cluster that is not asked: enough for any number of workers."""
NVIDIA = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True)
class PlannedStage:
    """A stage of the run, and what becomes of it."""

    name: str
    kept: bool
    why: str
    """ "": it is kept, or made for the first time; else what changed since its commit, or which stage it waits for."""
    again: bool
    """It is committed, but not for this configuration."""


class _Missing(Exception):  # noqa: N818  it says where a look ends, not that something went wrong
    """A stage is not committed as it is asked for."""

    def __init__(self, name: str, why: str, *, again: bool) -> None:
        super().__init__(name)
        self.name, self.why, self.again = name, why, again


class _Listener(Progress):
    """Keeps what the stages say of data and settings."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.said: list[str] = []

    def say(self, text: str) -> None:
        """A line that a run would print."""
        self.said.append(text)


@dataclass
class Peek(Context):
    """A context that looks up commits and makes none."""

    missing: dict[Stage, _Missing] = field(default_factory=dict)

    @property
    def said(self) -> list[str]:
        """What the stages said of data and settings."""
        assert isinstance(self.progress, _Listener)
        return self.progress.said

    def need(self, stage: Stage) -> Commit:
        """The commit of a stage; raises _Missing: it would be made."""
        if stage in self.missing:
            raise _Missing(stage.name, "", again=False)
        unmeasured = next((other for other in self.missing if other.kind is Kind.EVALUATE and other.scope is Scope.RUN), None)
        of_best = stage.kind in AFTER_ROUNDS or isinstance(stage.of, Chosen)
        of_best |= stage.kind is Kind.TRAIN_RERANKER and not trains_teacher(self.config)
        if unmeasured is not None and of_best:  # which model is best?
            raise _Missing(unmeasured.name, "", again=False)
        try:
            return super().need(stage)
        except _Missing as missing:
            self.missing[stage] = missing
            raise

    def commit(
        self, stage: Stage, *, inputs: Mapping[str, Any], work: Callable[[str], Outcome], name: str | None = None
    ) -> Commit:
        """The commit with these inputs; raises _Missing: there is none, or what it lists is not whole."""
        name = name or stage.name
        try:
            before = self.ledger.find(name)
        except DamagedObject:
            raise _Missing(stage.name, "its commit is damaged", again=True) from None
        if before is None:
            raise _Missing(stage.name, "", again=False)
        if before.key != key_of(name, inputs):
            raise _Missing(stage.name, _difference(before.inputs, inputs), again=True)
        try:
            self.ledger.verify(before)
        except DamagedObject:
            raise _Missing(stage.name, "an object of its commit is missing or damaged", again=True) from None
        return before


def peek(config: Config, store: Store, prints: Mapping[str, Any]) -> tuple[list[PlannedStage], Peek]:
    """(every stage of the run in order, as far as is known now; the context that looked).

    Raises:
        ConfigError, DataError: the run would be refused, because of what is committed of its data.
    """
    ledger = Ledger(store)
    functions = {**FUNCTIONS, Kind.FINISH: _look_at_finish}
    context = Peek(config, store, ledger, _Listener(), assumed_size(config, ledger), prints, functions)
    names, planned = set(ledger.names()), list[PlannedStage]()
    stages, ended = plan_run(config), False
    while stages:
        stage = stages.pop(0)
        try:
            context.need(stage)
        except _Missing as missing:
            own = missing.name == stage.name
            again = missing.again if own else stage.name in names
            why = missing.why if own else f"needs {missing.name}"
            planned.append(PlannedStage(stage.name, False, why, again))
            continue
        except DamagedObject:
            context.missing[stage] = _Missing(stage.name, "", again=True)
            planned.append(PlannedStage(stage.name, False, "an object that it reads is damaged", stage.name in names))
            continue
        planned.append(PlannedStage(stage.name, True, "", False))
        model = mined_model(stage)
        if not ended and model is not None and rule_on(context, model).stops:
            stages = [later for later in plan_after(config, model) if later not in context.done]
            ended = True
    return planned, context


def assumed_size(config: Config, ledger: Ledger) -> ClusterSize:
    """The cluster that the stages would find: this machine; of one that is elsewhere, what its commits were made with."""
    if config.cluster.address is None and not os.environ.get("RAY_ADDRESS"):
        cpus, gpus = config.cluster.cpus or os.cpu_count() or 1, _own_gpus()
        memory = int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * RAY_SHARE)
        return ClusterSize(nodes=1, cpus=cpus, gpus=gpus, gpu_nodes=min(1, gpus), node_cpus=cpus, node_memory=memory)
    commits = [commit for name in ledger.names() if (commit := _readable(ledger, name)) is not None]
    ranks = max((int(commit.figures["ranks"]) for commit in commits if "ranks" in commit.figures), default=1)
    gpus = ranks * (1 + int(config.rounds.background))  # which has as many for mining
    on_gpus = any(commit.inputs.get("bfloat16") for commit in commits) or config.cluster.device == "gpu"
    return ClusterSize(nodes=1, cpus=MANY_CPUS, gpus=gpus if on_gpus else 0, gpu_nodes=int(on_gpus))


def _readable(ledger: Ledger, name: str) -> Commit | None:
    try:
        return ledger.find(name)
    except ArtifactError:
        return None


def _own_gpus() -> int:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([number for number in visible.split(",") if number.strip() not in ("", "-1")])
    return len(list(NVIDIA.iterdir())) if NVIDIA.is_dir() else 0


def _look_at_finish(context: Context, stage: Stage) -> Commit:
    """The end of the run, which would write run.json if it ran."""
    return context.commit(stage, inputs=finish_of(context)[1], work=lambda _: Outcome())


def _difference(before: Mapping[str, Any], now: Mapping[str, Any], above: str = "") -> str:
    """What changed, in words: settings with both values, of anything else its name."""
    changes = []
    for key in {**before, **now}:
        old, new = before.get(key), now.get(key)
        if _plain(old) == _plain(new):
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changes.append(_difference(old, new, f"{above}{key}."))
        elif isinstance(old, bool | int | float | str | None) and isinstance(new, bool | int | float | str | None):
            changes.append(f"{above}{key} {_shown(old)} → {_shown(new)}")
        else:
            changes.append(f"{above}{key} changed")
    return "; ".join(changes)


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else f"{value}"
