"""What every stage of a driver needs: the configuration, the run's store and commits, the cluster, and a voice.

A stage is a function (context, stage) -> commit. It asks for the stages that it reads with `context.need`, which makes each
of them once, or takes its commit. So the same functions serve a whole run, one stage alone, and mining alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from cluster.commits import Commit, Ledger, Outcome, until_whole
from cluster.errors import ConfigError
from cluster.session.progress import Progress
from cluster.session.recovery import outlasting
from cluster.session.resources import ClusterSize, divided
from cluster.storage.store import Store
from cluster.storage.usage import METER, SEND_AFTER_S
from jobs.config.config import Config
from jobs.record.plan import plan_beside
from jobs.record.stages import Kind, Second, Stage

T = TypeVar("T")
MakeStage = Callable[["Context", Stage], Commit]
Makes = frozenset[Kind | Second | Stage]
"""Stages by kind, those of a second model by that, and single ones."""


@dataclass
class Context:
    """One driver on one run."""

    config: Config
    store: Store
    ledger: Ledger
    progress: Progress
    size: ClusterSize
    """What the cluster had when the latest stage began."""
    prints: Mapping[str, Any]
    """Fingerprints of the data and the base model."""
    functions: Mapping[Kind, MakeStage]
    """What makes each kind of stage."""
    makes: Makes | None = None
    """The stages that may be made where one is asked for alone; None: all."""
    trains: bool = True
    """Training and evaluation are to follow, so their settings must fit the data and the cluster."""
    look: Callable[[], ClusterSize] | None = None
    """What the cluster has now; None: always `size`."""
    done: dict[Stage, Commit] = field(default_factory=dict)
    """Commits in the order they were used, made now or taken."""

    def need(self, stage: Stage) -> Commit:
        """The commit of a stage, made now where it is not there, on what the cluster has now; tried again when that changes.

        Raises:
            ConfigError: another stage was asked for alone, and this one must be there first.
            ClusterError: workers, nodes or the storage failed too often.
        """
        if stage not in self.done:
            cluster = self.config.cluster
            self.done[stage] = outlasting(
                lambda: self._make(stage),
                store=self.store,
                retries=cluster.retries,
                wait_s=cluster.wait_s,
                say=self.progress.say,
                readers=stage.kind is not Kind.TRAIN,
            )
        return self.done[stage]

    def _make(self, stage: Stage) -> Commit:
        if self.look is not None:
            self.size = self.look()
        whole = self.size
        share = size_for(self.config, stage, whole)
        own = self if share == whole else replace(self, size=share, look=self.look or (lambda: whole))
        return self.functions[stage.kind](own, stage)

    def until_whole(self, drive: Callable[[Context], T]) -> T:
        """What `drive` returns; called again after a stored object that it found damaged was set aside."""

        def afresh() -> T:
            self.done.clear()
            return drive(self)

        return until_whole(self.ledger, afresh)

    def commit(
        self, stage: Stage, *, inputs: Mapping[str, Any], work: Callable[[str], Outcome], name: str | None = None
    ) -> Commit:
        """Run a stage's work, or take its commit.

        Args:
            inputs: everything that the result depends on.
            work: called with the stage's own folder.
            name: of the commit; None: the stage's.

        Raises:
            ConfigError: this stage may not be made now.
        """
        name = name or stage.name
        taken: list[Commit] = []

        def watched(folder: str) -> Outcome:
            if self.makes is not None and not may_make(stage, self.makes):
                raise ConfigError(
                    f"{name} is needed, but is not committed in {self.store.root} for this configuration; run the earlier "
                    f"stages first, or `hardmine run` for all of them"
                )
            self.progress.stage = name
            self.progress.say(f"· {name}")
            with self.progress.watch(name):
                if not self.progress.shared:
                    self._take_usage(wait_s=0)  # what the stage before left
                outcome = work(folder)
                return replace(outcome, usage=self._take_usage(), cpus=self.size.cpus, gpus=self.size.gpus)

        commit = self.ledger.stage(name, inputs=inputs, work=watched, folder=stage.folder, on_skip=taken.append)
        if commit.key not in {known.key for known in [*self.done.values()]}:  # an adapter's base vectors serve several stages
            seconds = commit.seconds
            state = "kept" if taken else f"{seconds['wall']:.1f} s ({seconds['overhead']:.1f} s of it start-up and commits)"
            self.progress.say(f"✓ {name:24} {state}")
        return commit

    def _take_usage(self, wait_s: float = 2 * SEND_AFTER_S) -> dict[str, dict[str, int]]:
        """What all processes have read and written since the last call; {}: nobody counts."""
        import ray

        if self.progress.usage is None:
            return {}
        METER.send()
        time.sleep(wait_s)
        with suppress(ray.exceptions.RayError):
            return dict(ray.get(self.progress.usage.take.remote()))
        return {}


def size_for(config: Config, stage: Stage, size: ClusterSize) -> ClusterSize:
    """What a stage may use of a cluster. With rounds.background trainings have one part, and what may run beside them the other.

    That depends on the stage alone, not on what runs beside it now: a resumed run computes with as many threads.

    Raises:
        ConfigError: the cluster is too small to be divided.
    """
    beside = plan_beside(config)
    if stage.kind is Kind.TRAIN and config.rounds.background:
        return divided(config.cluster, size)[0]
    return divided(config.cluster, size)[1] if any(stage in stages for stages in beside.values()) else size


def may_make(stage: Stage, makes: Makes) -> bool:
    """Whether a stage may be made where it is not committed."""
    return stage in makes or (stage.of if isinstance(stage.of, Second) else stage.kind) in makes


def in_worker(function: Callable[..., Any], context: Context, *arguments: Any) -> Any:
    """What `function` makes of the arguments, in a Ray task: models and tables stay out of the driver."""
    import ray

    remote = ray.remote(function).options(num_cpus=1, max_retries=context.config.cluster.retries)
    return ray.get(remote.remote(*arguments))
