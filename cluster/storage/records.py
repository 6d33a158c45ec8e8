"""Small JSON objects that a run reads back: each holds its own SHA-256, so that an edited or damaged one is told as such."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cluster.errors import ArtifactError, DamagedObject
from cluster.storage.digests import record_digest
from cluster.storage.store import Store

SMALL = 2**20
"""More than a record has: it is fetched by one request, whose answer also says whether there is one."""


def write_record(store: Store, path: str, value: Mapping[str, Any]) -> None:
    """Write a mapping of JSON values with its digest, under the key "sha256"."""
    plain = json.loads(json.dumps(dict(value)))  # as it will be read: numbers as keys become text
    store.write_json(path, plain | {"sha256": record_digest(plain)})


def read_record(store: Store, path: str) -> dict[str, Any]:
    """What `write_record` wrote, without its digest.

    Raises:
        ArtifactError: there is no such object. DamagedObject: it is not what was written.
    """
    for _ in range(2):
        data = store.read_bytes(path, SMALL)
        try:
            value = json.loads(data)
        except ValueError:
            continue
        if isinstance(value, dict):
            digest = value.pop("sha256", None)
            if digest == record_digest(value):
                return value
    raise DamagedObject.at(
        store.url(path),
        f"{store.url(path)} is not what this version of hardmine wrote there: it was edited or damaged, or another "
        f"version wrote it. Restore it, or delete it and run the same `hardmine run` again",
    )


def read_if_there(store: Store, path: str) -> dict[str, Any] | None:
    """As `read_record`; None where there is no such object."""
    try:
        return read_record(store, path)
    except DamagedObject:
        raise
    except ArtifactError:
        return None
