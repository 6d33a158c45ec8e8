"""Whether the storage of a run can be used, asked before any work."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path

from cluster.errors import ClusterError
from cluster.storage.errors import told
from cluster.storage.store import Store


def check_writable(store: Store) -> None:
    """Write, read and delete a small object, so that a wrong bucket or key is found before any work.

    Raises: ConfigError: no such bucket, or no keys. ClusterError: unreachable, or access denied.
    """
    store = _impatient(store)
    probe = f".probe-{uuid.uuid4().hex[:8]}"
    stamp = str(time.time()).encode()
    store.write_bytes(probe, stamp)
    if store.read_bytes(probe) != stamp:
        raise ClusterError(f"{store.url(probe)} did not read back what was written; the storage is not usable")
    store.delete(probe)


def check_reachable(store: Store) -> None:
    """As `check_writable`, as far as looking tells: nothing is written, so what keys may do on S3 is not known."""
    if store.remote:
        _impatient(store).look()
        return
    with told("write", store.root, store.settings):
        nearest = next(path for path in (Path(store.root), *Path(store.root).parents) if path.exists())
        if not nearest.is_dir():
            raise NotADirectoryError(str(nearest))
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise PermissionError(str(nearest))


def _impatient(store: Store) -> Store:
    """With few attempts: a wrong endpoint should be told in a second, not after half a minute."""
    return Store(store.root, store.settings.model_copy(update={"attempts": min(2, store.settings.attempts)}))
