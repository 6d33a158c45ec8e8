"""Replacing or giving up an object only where it still is what was read: If-Match on S3, a lock on the folder on a disk.

Of two writers that both saw the same version one succeeds. Storage that ignores If-Match takes both.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster.storage.errors import code
from cluster.storage.records import SMALL
from cluster.storage.store import EXISTS_CODES, Store

NOT_KNOWN = {"NotImplemented", "InvalidArgument"}
"""What storage answers that refuses the header."""
NOTHING = b"{}"
"""What stands on S3 for an object that was given up."""


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

    def write() -> None:
        store.write_bytes(path, data)

    same = store._call("replace", path, lambda _, key: _on_same_file(Path(key), version, write))
    return _digest(data) if same else None


def give_up(store: Store, path: str, version: str) -> bool:
    """Leave nothing of the object if it still has this version; False: it has another, or is gone.

    A file is removed. An object on S3 becomes `NOTHING`, because few storages take If-Match for a DELETE.
    """
    if store.remote:
        return replace(store, path, NOTHING, version) is not None
    return store._call("delete", path, lambda _, key: _on_same_file(Path(key), version, Path(key).unlink))


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


def _on_same_file(target: Path, version: str, change: Callable[[], None]) -> bool:
    """Change a file, or remove it, while no other writer does; False: it is another version, or gone."""
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(folder, fcntl.LOCK_EX)
        same = target.exists() and _digest(target.read_bytes()) == version
        if same:
            change()
        return same
    finally:
        os.close(folder)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
