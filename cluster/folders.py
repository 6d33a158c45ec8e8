"""Model folders in storage: uploaded with a manifest of digests, fetched once per node and checked before use."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cluster.commits import digest
from cluster.errors import ArtifactError, ConfigError
from cluster.storage import Store, join

Manifest = dict[str, dict[str, Any]]
"""Address relative to the run's root -> {"bytes": size, "sha256": digest}."""


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def upload_folder(local: Path, store: Store, prefix: str) -> Manifest:
    """Upload every file below `local` to `prefix`; returns what was written."""
    manifest: Manifest = {}
    for address, data in _files(local, prefix):
        store.write_bytes(address, data)
        manifest[address] = {"bytes": len(data), "sha256": sha256(data)}
    return manifest


def describe_folder(local: Path, prefix: str) -> Manifest:
    """What `upload_folder` will return, before it uploads anything."""
    return {address: {"bytes": len(data), "sha256": sha256(data)} for address, data in _files(local, prefix)}


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
    """A local copy of the folder at `prefix`, made at most once per node and content, every byte checked.

    Raises:
        ArtifactError: the manifest has nothing below `prefix`, or an object is gone or its SHA-256 is another one.
        ConfigError: the cache folder belongs to another user, who could put anything there.
    """
    wanted = {path: info for path, info in manifest.items() if path.startswith(prefix.rstrip("/") + "/")}
    if not wanted:
        raise ArtifactError(
            f"expected files below {store.url(prefix)}, but its commit lists none; delete that commit and run again"
        )
    cache = _cache()
    target = cache / folder_digest(manifest, prefix)
    if target.is_dir():
        return target
    partial = cache / f".{target.name}.{uuid.uuid4().hex[:8]}"
    for path, info in wanted.items():
        relative = path.removeprefix(prefix).strip("/")
        data = store.read_bytes(path)
        if sha256(data) != info["sha256"]:
            shutil.rmtree(partial, ignore_errors=True)
            raise ArtifactError(
                f"{store.url(path)} does not have the SHA-256 that was committed; it was changed or "
                f"damaged outside hardmine and is not loaded. Restore it, or delete its commit and run "
                f"again"
            )
        file = partial / relative
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    try:
        partial.rename(target)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        if not target.is_dir():  # else another process of this node was first
            raise
    return target


def _cache() -> Path:
    cache = Path(os.environ.get("HARDMINE_CACHE", Path(tempfile.gettempdir()) / f"hardmine-cache-{os.getuid()}"))
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    if cache.stat().st_uid != os.getuid():
        raise ConfigError(f"the model cache {cache} is another user's; set HARDMINE_CACHE to a folder of your own")
    return cache
