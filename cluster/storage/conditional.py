"""Replacing an object only where it still is what was read: If-Match on S3, a lock on the folder on a disk.

Of two writers that both saw the same version one succeeds. Storage that ignores If-Match takes both.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster.storage.errors import code
from cluster.storage.records import SMALL
from cluster.storage.store import EXISTS_CODES, Store

NOT_KNOWN = {"NotImplemented", "InvalidArgument"}
"""What storage answers that refuses the header."""


def read_version(store: Store, path: str) -> tuple[bytes, str]:
    """(the object, what tells this version from others). Raises ArtifactError: there is none."""
    if not store.remote:
        data = store.read_bytes(path)
        return data, _digest(data)
    # the version first: an object that is replaced in between has the older one, and is not replaced by it
    version = store._call("look up", path, lambda fs, key: str(fs.info(key)["ETag"]))
    return store.read_bytes(path, SMALL), version


def replace(store: Store, path: str, data: bytes, version: str) -> str | None:
    """Write the object if it still has this version: its new version; None: it has another, or is gone."""
    if store.remote:
        return store._call("replace", path, lambda fs, key: _put(fs, key, data, version))
    return store._call("replace", path, lambda _, key: _replace_file(store, path, Path(key), data, version))


def _put(fs: Any, key: str, data: bytes, version: str) -> str | None:
    try:
        answer = fs.pipe_file(key, data, IfMatch=version)
    except FileNotFoundError as error:
        if code(error) == "NoSuchBucket":
            raise
        return None
    except OSError as error:
        if code(error) in EXISTS_CODES:
            return None
        if code(error) not in NOT_KNOWN:
            raise
        answer = fs.pipe_file(key, data)
    return str(answer["ETag"])


def _replace_file(store: Store, path: str, target: Path, data: bytes, version: str) -> str | None:
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(folder, fcntl.LOCK_EX)
        if not target.exists() or _digest(target.read_bytes()) != version:
            return None
        store.write_bytes(path, data)
        return _digest(data)
    finally:
        os.close(folder)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
