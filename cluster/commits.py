"""Commits: which stages of a run are finished, with what inputs and settings, and what they left.

A stage works in a folder named after its *key* (the digest of its inputs and of the settings it depends on), writes
each object whole, and its commit last. Only a committed stage exists for others. A stage that is asked for again under
the same key is skipped; under another key it works in another folder, so nothing is overwritten and no rename is
needed (S3 has none). Parts that an interrupted attempt left in the same folder are taken over: the key says they are the
same work, and their seal that they are whole.

Every commit holds the digest of each object it lists, and its own. A stage whose objects are missing or of another size is
made anew when it is asked for; one that a reader finds damaged is set aside by `until_whole`, and then made anew as well.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from cluster.errors import ArtifactError, DamagedObject, unwrap
from cluster.storage.digests import read_checked, sha256
from cluster.storage.records import read_if_there, write_record
from cluster.storage.store import Store
from cluster.storage.usage import Used
from cluster.tables.tables import TOGETHER, Part, parts_from_json, read_sealed

T = TypeVar("T")
KEY_LENGTH = 16


def digest(value: Any) -> str:
    """Hexadecimal digest of a JSON-able value; the order of a mapping's keys does not matter."""
    return sha256(json.dumps(value, sort_keys=True, default=str, ensure_ascii=False).encode())[:KEY_LENGTH]


def key_of(name: str, inputs: Mapping[str, Any]) -> str:
    """The key under which a stage with these inputs is committed."""
    return digest({"stage": name, **inputs})


@dataclass(frozen=True)
class Commit:
    """What one finished stage left."""

    name: str
    """Stage name, unique in the run, e.g. "round-01-mine"."""
    key: str
    """Digest of inputs and settings."""
    inputs: dict[str, Any]
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Table name -> its parts."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Other objects: address -> {"bytes", "sha256"}."""
    figures: dict[str, Any] = field(default_factory=dict)
    """Counts and results, small."""
    seconds: dict[str, float] = field(default_factory=dict)
    """"wall" of the stage, "work" inside embedding, searching or training, "overhead" = wall - work; "cpu" and "gpu" of all CPUs
    and GPUs that the stage could use, whether it did or not: what they cost."""
    created: float = 0.0
    usage: dict[str, dict[str, int]] = field(default_factory=dict)
    """By kind of process: "requests", "read_bytes", "written_bytes" of all, and "peak_bytes" of the largest one."""

    def parts(self, table: str) -> list[Part]:
        """The parts of one of its tables. Raises ArtifactError: no such table."""
        if table not in self.tables:
            raise ArtifactError(f"commit {self.name} holds the tables {sorted(self.tables)}, not {table!r}")
        return parts_from_json(self.tables[table])

    def listed(self) -> dict[str, Mapping[str, Any]]:
        """Every object of the stage: address -> "bytes" and "sha256"."""
        parts = {part["path"]: part for parts in self.tables.values() for part in parts}
        return {**parts, **self.files}

    @property
    def used(self) -> dict[str, int]:
        """ "requests", "read_bytes" and "written_bytes" of all processes, and "peak_bytes" of the largest one."""
        total = Used()
        for counts in self.usage.values():
            total.add(Used(**counts))
        return asdict(total)

    def rows(self, table: str) -> int:
        """Number of rows of one of its tables."""
        return sum(part.rows for part in self.parts(table))


@dataclass(frozen=True)
class Outcome:
    """What a stage's work returns; becomes its commit."""

    tables: Mapping[str, list[Part]] = field(default_factory=dict)
    files: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    work_seconds: float = 0.0
    cpus: int = 0
    gpus: int = 0
    """What the cluster had for the stage."""
    usage: Mapping[str, dict[str, int]] = field(default_factory=dict)
    scratch: tuple[str, ...] = ()
    """Folders that served this work only. They go after the commit, from the process that owns the run: a worker that its driver
    lost runs on, and would delete them under the worker that does its work again."""


class Ledger:
    """The commits of one run."""

    def __init__(
        self, store: Store, *, check_owner: Callable[[], None] | None = None, say: Callable[[str], None] | None = None
    ) -> None:
        """A ledger on a run.

        Args:
            check_owner: raises if this process no longer owns the run; called before each commit is written.
            say: prints a line for a person.
        """
        self.store = store
        self._check_owner = check_owner or (lambda: None)
        self._say = say or (lambda _: None)
        self._set_aside: set[str] = set()

    def path(self, name: str) -> str:
        """Address of a stage's commit."""
        return f"commits/{name}.json"

    def find(self, name: str, key: str | None = None) -> Commit | None:
        """The commit of stage `name`, if there is one (and its key is `key`)."""
        value = read_if_there(self.store, self.path(name))
        if value is None:
            return None
        try:
            commit = Commit(**value)
        except TypeError as error:
            raise ArtifactError(
                f"{self.store.url(self.path(name))} is not a commit this version can read ({error}); "
                f"it was written by another version of hardmine: use another output or name"
            ) from error
        return commit if key is None or commit.key == key else None

    def all(self) -> list[Commit]:
        """Every commit of the run, oldest first."""
        commits = [commit for name in self.names() if (commit := self.find(name)) is not None]
        return sorted(commits, key=lambda commit: commit.created)

    def names(self) -> list[str]:
        """Names of the stages that have a commit, readable or not."""
        names = [path.removeprefix("commits/").removesuffix(".json") for path in self.store.list("commits")]
        return [name for name in names if name]

    def stage(
        self,
        name: str,
        *,
        inputs: Mapping[str, Any],
        work: Callable[[str], Outcome],
        folder: str,
        on_skip: Callable[[Commit], None] | None = None,
    ) -> Commit:
        """The commit of stage `name`: what is there, or what `work` makes now.

        Args:
            inputs: everything the result depends on (digests of inputs, settings); JSON-able.
            work: called with the stage's own folder, "<folder>/<key>"; must write only below it.
            folder: where the stage's folders lie.
            on_skip: called with a commit that was already there.

        A stage whose commit is damaged, or lists an object that is missing or has another size, is made anew.
        """
        key = key_of(name, inputs)
        known = self._whole(name, key)
        if known is not None:
            if on_skip is not None:
                on_skip(known)
            return known
        started = time.monotonic()
        outcome = work(f"{folder}/{key}")
        wall = time.monotonic() - started
        commit = Commit(
            name=name,
            key=key,
            inputs=json.loads(json.dumps(dict(inputs), default=str)),
            tables={table: [part.to_json() for part in parts] for table, parts in outcome.tables.items()},
            files=dict(outcome.files),
            figures=dict(outcome.figures),
            seconds={
                "wall": round(wall, 3),
                "work": round(outcome.work_seconds, 3),
                "overhead": round(max(0.0, wall - outcome.work_seconds), 3),
                "cpu": round(wall * outcome.cpus, 3),
                "gpu": round(wall * outcome.gpus, 3),
            },
            created=time.time(),
            usage=dict(outcome.usage),
        )
        assert all(info["sha256"] for info in commit.listed().values()), f"{name} lists an object without its digest"
        self._check_owner()
        write_record(self.store, self.path(name), asdict(commit))
        for path in outcome.scratch:
            self.store.delete(path)
        return commit

    def _whole(self, name: str, key: str) -> Commit | None:
        """The commit, unless something of it is damaged, which is said."""
        try:
            commit = self.find(name, key)
            if commit is not None:
                self.verify(commit)
        except DamagedObject as error:
            self._say(f"! {error}. That is done now")
            return None
        return commit

    def verify(self, commit: Commit, *, content: bool = False) -> None:
        """Check what a commit lists: that it is there with its size, and with `content` also every byte.

        Raises:
            DamagedObject: the first object that is missing or not what was committed.
        """
        for path, problem in self.problems(commit, content=content):
            raise DamagedObject.at(self.store.url(path), f"{self.store.url(path)} {problem}; `hardmine run` makes it anew")

    def problems(self, commit: Commit, *, content: bool) -> Iterator[tuple[str, str]]:
        """(address, what is wrong) of each object of a commit that is missing or not what was committed."""
        listed = commit.listed()
        sizes: dict[str, int] = {}
        for folder in {path.rpartition("/")[0] for path in listed}:
            sizes.update(self.store.list(folder))
        whole = []
        for path, info in listed.items():
            if path not in sizes:
                yield path, f"is missing, but commit {commit.name} lists it"
            elif sizes[path] != info["bytes"]:
                yield path, f"has {sizes[path]} bytes, but commit {commit.name} lists it with {info['bytes']}"
            else:
                whole.append(path)
        if content:
            parts = {part.path: part for table in commit.tables for part in commit.parts(table)}
            with ThreadPoolExecutor(TOGETHER) as pool:
                for path, damaged in zip(whole, pool.map(lambda path: self._damaged(path, listed, parts), whole), strict=True):
                    if damaged:
                        yield path, f"does not have the SHA-256 that commit {commit.name} lists"

    def _damaged(self, path: str, listed: Mapping[str, Mapping[str, Any]], parts: Mapping[str, Part]) -> bool:
        try:
            if path in parts:
                read_sealed(self.store, parts[path])
            else:
                read_checked(self.store, path, listed[path]["sha256"])
        except DamagedObject:
            return True
        return False

    def set_aside(self, error: DamagedObject) -> None:
        """Delete a damaged object and the commits that list it, so that the next driver pass makes both anew.

        Raises:
            DamagedObject: `error` itself, where the object was set aside before or is not one that a stage of this run makes.
        """
        path = error.url.removeprefix(f"{self.store.root}/")
        if path == error.url or path in self._set_aside:
            raise error
        self._set_aside.add(path)
        self._check_owner()
        for name in self.names():
            try:
                commit = self.find(name)
            except DamagedObject:
                continue
            if commit is not None and path in commit.listed():
                self.store.delete(self.path(name))  # first: a commit never lists what was deleted
        self.store.delete(path)
        self._say(f"! {error}. That is done now")


def until_whole(ledger: Ledger, drive: Callable[[], T]) -> T:
    """What `drive` returns, called again after what it found damaged was set aside; its finished stages are kept.

    Raises:
        DamagedObject: the same object is damaged again.
    """
    while True:
        try:
            return drive()
        except Exception as error:
            damaged = unwrap(error)
            if not isinstance(damaged, DamagedObject):
                raise
        ledger.set_aside(damaged)
