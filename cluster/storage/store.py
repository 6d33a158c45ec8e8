"""One way to objects, on a local folder or on S3: the only module that opens a file system.

A `Store` is an address and settings, never a connection and never a key: it can be pickled to any worker, and each
process opens its own file system on first use. Keys come from the usual variables or the named profile.
An object appears whole or not at all: one PUT on S3, write-then-rename on a local disk. Nothing is renamed on S3.
"""

from __future__ import annotations

import builtins
import errno
import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from cluster.errors import ArtifactError, ConfigError
from cluster.storage.errors import code, told
from cluster.storage.local_files import list_files
from cluster.storage.s3 import open_s3, read_s3
from cluster.storage.settings import StorageSettings
from cluster.storage.usage import METER, Counted

if TYPE_CHECKING:
    import pyarrow.fs

T = TypeVar("T")

PARTIAL = ".partial"
"""Ending of a local file that is still being written; never listed."""
BUSY_FOLDER_S = 2.0
"""How long a folder on a disk is emptied again and again while files still come into it."""
EXISTS_CODES = {"PreconditionFailed", "ConditionalRequestConflict"}
"""What S3 answers to a PUT with If-None-Match where an object is, or is being written by another."""


def is_s3(url: str) -> bool:
    """Whether `url` names an object or prefix on S3."""
    return url.startswith("s3://")


def join(root: str, *parts: str) -> str:
    """`root` and `parts` as one address with single slashes."""
    return "/".join([root.rstrip("/"), *(part.strip("/") for part in parts if part)])


class Store:
    """Objects below one root folder or prefix."""

    def __init__(self, root: str, settings: StorageSettings | None = None) -> None:
        """Args: root: `s3://bucket/prefix` or a local folder; settings: how to reach S3."""
        if "://" in root and not is_s3(root):
            raise ConfigError(f"expected a local folder or s3://bucket/prefix, found {root!r}; no other is supported")
        if any(ord(letter) < 32 for letter in root):
            raise ConfigError(f"expected an address without NUL characters and line breaks, found {root!r}; take them out")
        if is_s3(root) and "@" in root.removeprefix("s3://").split("/")[0]:
            raise ConfigError(
                "an s3:// address must not hold keys (s3://KEY:SECRET@bucket); take them out of the address and set "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or storage.profile"
            )
        self.root = root.rstrip("/") if is_s3(root) else str(Path(root).expanduser().absolute())
        self.settings = settings or StorageSettings()
        self._opened: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "settings": self.settings, "_opened": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def url(self, path: str) -> str:
        """The full address of `path`."""
        return join(self.root, path) if path else self.root

    @property
    def remote(self) -> bool:
        """Whether objects live on S3."""
        return is_s3(self.root)

    def _fs(self) -> Any:
        if self._opened is None:
            self._opened = open_s3(self.settings) if self.remote else _open_local()
        return self._opened

    def _call(self, what: str, path: str, action: Callable[[Any, str], T]) -> T:
        url = self.url(path)
        METER.count()
        with told(what, url, self.settings):
            return action(self._fs(), url.removeprefix("s3://"))

    def read_bytes(self, path: str, size: int | None = None) -> bytes:
        """The whole object. Raises ArtifactError: there is none.

        Args:
            size: of the object, where it is known: a small one then costs one request.
        """

        def action(fs: Any, key: str) -> bytes:
            return read_s3(fs, key, size) if self.remote else bytes(fs.cat_file(key))

        data = self._call("read", path, action)
        METER.count(requests=0, read=len(data))
        return data

    def read_range(self, path: str, start: int, stop: int) -> bytes:
        """The bytes start … stop - 1 of an object, fewer where it ends before. Raises ArtifactError: there is none."""
        data = self._call("read", path, lambda fs, key: bytes(fs.cat_file(key, start=start, end=stop)))
        METER.count(requests=0, read=len(data))
        return data

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write the whole object, replacing what was there; readers see the old or the new one, never half."""
        METER.count(requests=0, written=len(data))
        if self.remote:
            self._call("write", path, lambda fs, key: fs.pipe_file(key, data))
        else:
            self._call("write", path, lambda _fs, key: _write_local(key, data))

    def create(self, path: str, data: bytes) -> bool:
        """Write the object only where there is none yet; False if another writer was first."""
        METER.count(requests=0, written=len(data))

        def action(fs: Any, key: str) -> bool:
            try:
                if self.remote:
                    fs.pipe_file(key, data, mode="create")
                else:
                    _write_local(key, data, place=os.link)  # a link, unlike a rename, never replaces
            except FileExistsError:
                return False
            except OSError as error:
                if code(error) not in EXISTS_CODES:
                    raise
                return False
            return True

        return self._call("create", path, action)

    def exists(self, path: str) -> bool:
        """Whether there is an object or folder at `path`."""
        return self._call("look up", path, lambda fs, key: bool(fs.exists(key)))

    def size(self, path: str) -> int | None:
        """Size of the object in bytes; None where there is none."""

        def action(fs: Any, key: str) -> int | None:
            try:
                info = fs.info(key)
            except FileNotFoundError:
                return None
            return int(info["size"]) if info["type"] == "file" else None

        return self._call("look up", path, action)

    def list(self, path: str = "") -> dict[str, int]:
        """All objects below `path`, sorted: address relative to the root -> size in bytes; perhaps none.

        On a disk also what symbolic links lead to; one that leads nowhere has 0 bytes, and fails when it is opened.
        """

        def action(fs: Any, key: str) -> dict[str, int]:
            if not self.remote:
                files = list_files(key, leave_out=PARTIAL)
                return {str(PurePosixPath(name).relative_to(self.root)): size for name, size in sorted(files.items())}
            found = fs.find(key, detail=True)
            root = self.root.removeprefix("s3://")
            # pyarrow leaves empty objects that stand for folders: they are no one's data
            kept = {
                name: info
                for name, info in sorted(found.items())
                if name != root
                and info["type"] == "file"
                and not info.get("Key", "").endswith("/")
                and not name.endswith(PARTIAL)
            }
            return {str(PurePosixPath(name).relative_to(root)): int(info["size"]) for name, info in kept.items()}

        return self._call("list", path, action)

    def folders(self) -> builtins.list[str]:
        """Names of the folders directly below the root, sorted; what lies in them is not looked at."""

        def action(fs: Any, key: str) -> builtins.list[str]:
            try:
                entries = fs.ls(key, detail=True, refresh=True)
            except FileNotFoundError:
                return []
            return sorted(PurePosixPath(entry["name"]).name for entry in entries if entry["type"] == "directory")

        return self._call("list", "", action)

    def look(self) -> None:
        """Ask for what is at the root, perhaps nothing. Raises as any call; ConfigError: there is no such bucket."""

        def action(fs: Any, key: str) -> None:
            try:
                fs.ls(key, refresh=True)
            except FileNotFoundError as error:
                if code(error) == "NoSuchBucket":
                    raise

        self._call("list", "", action)

    def delete(self, path: str) -> None:
        """Delete an object or everything below a folder; nothing to delete is no error. What another process still writes into a
        folder on a disk is waited for, two seconds at most."""

        def action(fs: Any, key: str) -> None:
            if self.remote:
                with suppress(FileNotFoundError):
                    fs.rm(key, recursive=True)
                return
            deadline = time.monotonic() + BUSY_FOLDER_S
            while fs.exists(key):
                try:
                    fs.rm(key, recursive=True)
                except OSError as error:
                    # a file came or went while its folder was emptied
                    if error.errno not in (errno.ENOTEMPTY, errno.ENOENT) or time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)

        self._call("delete", path, action)

    def sweep(self) -> int:
        """Delete what killed writers left half-written in a local folder; returns how many files. Only for the one writer."""
        if self.remote:  # a PUT that ends early leaves nothing
            return 0
        left = list(Path(self.root).rglob(f".*{PARTIAL}"))
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)

    def open(self, path: str) -> Any:
        """A binary stream of the object, for what is too large to hold. Raises ArtifactError: there is none."""
        return Counted(self._call("open", path, lambda fs, key: fs.open(key, "rb")), self.remote)

    def fingerprint(self, path: str) -> str:
        """What tells an object's content apart: its SHA-256 on a disk, its size and ETag on S3."""
        if self.remote:
            info = self._call("look up", path, lambda fs, key: fs.info(key))
            return f"{info['size']}-{str(info.get('ETag', '')).strip(chr(34))}"
        with self.open(path) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def read_json(self, path: str) -> Any:
        """The JSON object at `path`. Raises ArtifactError: missing or not JSON."""
        data = self.read_bytes(path)
        try:
            return json.loads(data)
        except ValueError as error:
            raise ArtifactError(
                f"{self.url(path)} is not valid JSON ({error}); it was damaged outside hardmine: delete it and run again"
            ) from error

    def write_json(self, path: str, value: Any) -> None:
        """Write `value` as indented JSON."""
        self.write_bytes(path, json.dumps(value, indent=1, sort_keys=False).encode())

    def arrow_filesystem(self) -> tuple[pyarrow.fs.FileSystem | None, str]:
        """(pyarrow file system, path in it) of the root for Ray; the file system is None for a local folder.

        It carries no key: on S3 it resolves credentials from the environment of the process that opens it.
        """
        if not self.remote:
            return None, self.root
        from pyarrow import fs

        if self.settings.profile:  # pyarrow knows no named profile but AWS_PROFILE's
            return fs.PyFileSystem(fs.FSSpecHandler(open_s3(self.settings))), self.root.removeprefix("s3://")
        endpoint = self.settings.resolved_endpoint()
        scheme, _, host = (endpoint or "").rpartition("://")
        options: dict[str, Any] = {"region": self.settings.resolved_region()}
        if endpoint:  # pyarrow does not read AWS_ENDPOINT_URL (apache/arrow#49643)
            options.update(endpoint_override=host.rstrip("/"), scheme=scheme or "https")
        return fs.S3FileSystem(**options), self.root.removeprefix("s3://")


def _open_local() -> Any:
    from fsspec.implementations.local import LocalFileSystem

    return LocalFileSystem(skip_instance_cache=True)


def _write_local(path: str, data: bytes, place: Callable[[Path, Path], None] = os.replace) -> None:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{uuid.uuid4().hex[:12]}{PARTIAL}")
    try:
        temporary.write_bytes(data)
        place(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
