"""Model folders in storage: uploaded with a manifest of digests, fetched once per node and checked before use.

Fetched folders lie in the driver's folder of the node and go with it; in HARDMINE_CACHE, where that is set, they stay.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cluster.commits import digest
from cluster.errors import ArtifactError, ConfigError
from cluster.session.node_folder import node_folder
from cluster.storage.digests import described, read_checked
from cluster.storage.store import Store, join

STALE_S = 6 * 3600.0
"""After this long without a new file, what was half fetched into the cache is deleted."""
Manifest = dict[str, dict[str, Any]]
"""Address relative to the run's root -> {"bytes": size, "sha256": digest}."""


def upload_folder(local: Path, store: Store, prefix: str) -> Manifest:
    """Upload every file below `local` to `prefix`; returns what was written."""
    manifest: Manifest = {}
    for address, data in _files(local, prefix):
        store.write_bytes(address, data)
        manifest[address] = described(data)
    return manifest


def describe_folder(local: Path, prefix: str) -> Manifest:
    """What `upload_folder` will return, before it uploads anything."""
    return {address: described(data) for address, data in _files(local, prefix)}


def _files(local: Path, prefix: str) -> Iterator[tuple[str, bytes]]:
    for file in sorted(path for path in local.rglob("*") if path.is_file()):
        yield join(prefix, file.relative_to(local).as_posix()), file.read_bytes()


def folder_digest(manifest: Mapping[str, Mapping[str, Any]], prefix: str) -> str:
    """Digest of a folder's content: its relative names and their SHA-256; where it lies does not matter."""
    return digest(
        {
            path.removeprefix(prefix).strip("/"): info["sha256"]
            for path, info in manifest.items()
            if path.startswith(prefix.rstrip("/") + "/")
        }
    )


def fetch_folder(store: Store, manifest: Mapping[str, Mapping[str, Any]], prefix: str) -> Path:
    """A local copy of the folder at `prefix`, made once per node and content; every byte is checked at every call.

    Raises:
        ArtifactError: the manifest has nothing below `prefix`.
        DamagedObject: an object is gone, or does not have its SHA-256 when it is read twice.
        ConfigError: the cache folder belongs to another user, who could put anything there.
    """
    wanted = {path: info for path, info in manifest.items() if path.startswith(prefix.rstrip("/") + "/")}
    if not wanted:
        raise ArtifactError(
            f"expected files below {store.url(prefix)}, but its commit lists none; delete that commit and run again"
        )
    cache = _cache()
    target = cache / folder_digest(manifest, prefix)
    names = {path: path.removeprefix(prefix).strip("/") for path in wanted}
    if not _is_whole(target, names, wanted):
        with _alone(cache):
            if not _is_whole(target, names, wanted):  # no other process of this node has fetched it meanwhile
                _fetch(store, wanted, names, target)
    return target


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Hold the node's cache; a process that dies lets go of it."""
    held = os.open(cache, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _fetch(store: Store, wanted: Mapping[str, Mapping[str, Any]], names: Mapping[str, str], target: Path) -> None:
    cache = target.parent
    partial, aside = (cache / f".{target.name}.{uuid.uuid4().hex[:8]}" for _ in range(2))
    try:
        for path, info in wanted.items():
            file = partial / names[path]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(read_checked(store, path, info["sha256"]))
        if target.is_dir():
            target.rename(aside)  # damaged, or thinned out by whoever clears temporary folders
        partial.rename(target)
    finally:
        for left in (partial, aside):
            shutil.rmtree(left, ignore_errors=True)


def _is_whole(folder: Path, names: Mapping[str, str], wanted: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether each file below `folder` has the SHA-256 that it should have."""
    try:
        for path, info in wanted.items():
            with (folder / names[path]).open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != info["sha256"]:
                    return False
    except OSError:
        return False
    return True


def _cache() -> Path:
    cache = Path(os.environ.get("HARDMINE_CACHE") or node_folder() / "models")
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    if cache.stat().st_uid != os.getuid():
        raise ConfigError(f"the model cache {cache} is another user's; set HARDMINE_CACHE to a folder of your own")
    for partial in cache.glob(".*"):  # of a process that was killed while it fetched
        with suppress(FileNotFoundError):  # another process has just finished it
            if time.time() - partial.stat().st_mtime > STALE_S:
                shutil.rmtree(partial, ignore_errors=True)
    return cache
