"""refresh.json beside the exports: every decision that was taken, with its reason."""

from __future__ import annotations

from typing import Any

from cluster.errors import ArtifactError, DamagedObject
from cluster.storage.records import read_if_there, write_record
from cluster.storage.store import Store

HISTORY = "refresh.json"


def read_history(home: Store) -> list[dict[str, Any]]:
    """All decisions, oldest first.

    Raises:
        ArtifactError: the file was changed by somebody else.
    """
    try:
        record = read_if_there(home, HISTORY)
    except DamagedObject as error:
        raise ArtifactError(
            f"{home.url(HISTORY)} is not what hardmine wrote there; restore it, or move it away: then the next refresh compares "
            f"with the live export only"
        ) from error
    return list(record["decisions"]) if record else []


def append(home: Store, entry: dict[str, Any]) -> None:
    """Add a decision."""
    write_record(home, HISTORY, {"decisions": [*read_history(home), entry]})
