"""A finished run as its storage tells it: commits by name, the summary, the settings. Starts nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.commits import Commit
from cluster.errors import ArtifactError, ConfigError
from cluster.records import read_if_there
from cluster.storage import Store
from jobs.finished.status import read_status
from jobs.record.record import RunRecord
from jobs.record.stages import Kind, ModelName, Stage


@dataclass(frozen=True)
class FinishedRun:
    """One run, and nothing of another configuration."""

    store: Store
    record: RunRecord
    summary: Mapping[str, Any]
    """As `hardmine run` printed it."""
    settings: Mapping[str, Any]
    """The resolved configuration, as run.json holds it; one of an older version may lack settings."""

    @property
    def best_round(self) -> int:
        """The round whose model was kept; -1: none was better than the off-the-shelf model."""
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
        """A setting of run.json, or `default` where the version that wrote it did not know it."""
        return self.settings.get(section, {}).get(name, default)


def open_finished(store: Store) -> FinishedRun:
    """The run at an address.

    Raises:
        ConfigError: there is no run, it is not finished, or it is being made anew with other settings.
    """
    status = read_status(store)
    if status.summary is None:
        writer = f" (it is being written by {status.writer})" if status.writer else ""
        raise ConfigError(
            f"expected a finished run at {store.root}, found one with {len(status.record.all)} committed stages "
            f"and no end{writer}; let `hardmine run` finish first, `hardmine status {store.root}` shows how far "
            f"it is"
        )
    settings = (read_if_there(store, "run.json") or {"config": {}})["config"]
    return FinishedRun(store, status.record, status.summary, settings)
