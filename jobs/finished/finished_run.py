"""A finished run, read from its storage: commits, summary, settings. Starts nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.commits import Commit
from cluster.errors import ArtifactError, ConfigError
from cluster.storage.records import read_if_there
from cluster.storage.store import Store
from jobs.finished.status import read_status
from jobs.record.record import RunRecord
from jobs.record.stages import Kind, ModelName, Stage


@dataclass(frozen=True)
class FinishedRun:
    """A run whose commits are all of one configuration."""

    store: Store
    record: RunRecord
    summary: Mapping[str, Any]
    """What `hardmine run --json` printed."""
    settings: Mapping[str, Any]
    """The resolved configuration, as run.json holds it."""

    @property
    def best_round(self) -> int:
        """The round of the kept model; -1: the off-the-shelf model."""
        return int(self.summary["best_round"])

    def commit(self, kind: Kind, of: ModelName | None = None) -> Commit:
        """A stage's commit. Raises ArtifactError: there is none."""
        commit = self.record.find(kind, of)
        if commit is None:
            raise ArtifactError(
                f"expected a commit {Stage(kind, of).name} in {self.store.root}, found none; run the same `hardmine run` "
                f"again to make it"
            )
        return commit

    def setting(self, section: str, name: str, default: Any) -> Any:
        """A setting of run.json; `default` where it is missing."""
        return self.settings.get(section, {}).get(name, default)


def open_finished(store: Store) -> FinishedRun:
    """Open the run at `store`.

    Raises:
        ConfigError: there is no run, it is not finished, or it is running again with other settings.
    """
    status = read_status(store)
    if status.summary is None:
        writer = f" ({status.writer} is writing it)" if status.writer else ""
        raise ConfigError(
            f"expected a finished run at {store.root}, found one without the commit `finish` (committed stages: "
            f"{len(status.record.all)}){writer}; let `hardmine run` finish first (`hardmine status {store.root}` says more)"
        )
    settings = (read_if_there(store, "run.json") or {"config": {}})["config"]
    return FinishedRun(store, status.record, status.summary, settings)
