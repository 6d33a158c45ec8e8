"""What every stage of a driver needs: the configuration, the run's store and commits, the cluster, and a voice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cluster.commits import Commit, Ledger, Outcome
from cluster.errors import ConfigError
from cluster.progress import Progress
from cluster.resources import ClusterSize
from cluster.storage import Store
from jobs.config.config import Config


class StageDone(Exception):  # noqa: N818  not an error: the one stage that was asked for is finished
    """Ends a driver that was asked for one stage alone."""

    def __init__(self, commit: Commit) -> None:
        super().__init__(commit.name)
        self.commit = commit


@dataclass(frozen=True)
class Only:
    """A driver that runs one stage alone: its commit's name, and which kinds of stage it may make on the way."""

    name: str
    makes: frozenset[str]
    trains: bool = True
    """The stage belongs to a run that trains; False: to one that only mines."""


@dataclass
class Context:
    """One driver on one run."""

    config: Config
    store: Store
    ledger: Ledger
    progress: Progress
    size: ClusterSize
    only: Only | None = None
    stages: list[Commit] = field(default_factory=list)
    """Commits in the order they were used, made now or found."""

    def stage(self, kind: str, name: str, *, folder: str, inputs: Mapping[str, Any], work: Callable[[str], Outcome]) -> Commit:
        """Run a stage, or take its commit.

        Args:
            kind: ingest, base, tokens, embed, search, mine, near, teacher, guide, report, train, events, evaluate or finish.

        Raises:
            ConfigError: another stage was asked for alone, and this one must be there first.
            StageDone: this was the stage that was asked for.
        """
        skipped: list[Commit] = []

        def counted(place: str) -> Outcome:
            if self.only is not None and name != self.only.name and kind not in self.only.makes:
                raise ConfigError(
                    f"{self.only.name} needs {name}, which is not committed in {self.store.root}; run the "
                    f"earlier stages first, or `hardmine run` for all of them"
                )
            self.progress.say(f"· {name}")
            with self.progress.watch(name):
                return work(place)

        commit = self.ledger.stage(name, inputs=inputs, work=counted, folder=folder, on_skip=skipped.append)
        seconds = commit.seconds
        state = "kept" if skipped else f"{seconds['wall']:.1f} s ({seconds['overhead']:.1f} s of it start-up and commits)"
        if commit.key not in {known.key for known in self.stages}:  # an adapter's base vectors are asked for every round
            self.progress.say(f"✓ {name:24} {state}")
        self.stages.append(commit)
        if self.only is not None and name == self.only.name:
            raise StageDone(commit)
        return commit
