"""Commits: which stages of a run are finished, with what inputs and settings, and what they left.

A stage works in a folder named after its *key* (the digest of its inputs and of the settings it depends on), writes
each object whole, and its commit last. Only a committed stage exists for others. A stage that is asked for again under
the same key is skipped; under another key it works in another folder, so nothing is overwritten and no rename is
needed (S3 has none). Parts that an interrupted attempt left in the same folder are taken over: they were written whole
and the key says they are the same work.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cluster.errors import ArtifactError
from cluster.storage import Store
from cluster.tables import Part, parts_from_json

KEY_LENGTH = 16


def digest(value: Any) -> str:
    """Hexadecimal digest of a JSON-able value; the order of a mapping's keys does not matter."""
    text = json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


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
    """"wall" of the stage, "work" inside embedding, searching or training, "overhead" = wall - work."""
    created: float = 0.0

    def parts(self, table: str) -> list[Part]:
        """The parts of one of its tables. Raises ArtifactError: no such table."""
        if table not in self.tables:
            raise ArtifactError(f"commit {self.name} holds the tables {sorted(self.tables)}, not {table!r}")
        return parts_from_json(self.tables[table])

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


class Ledger:
    """The commits of one run."""

    def __init__(self, store: Store, *, check_owner: Callable[[], None] | None = None) -> None:
        """Args: check_owner: raises if this process no longer owns the run; called before each commit is written."""
        self.store = store
        self._check_owner = check_owner or (lambda: None)

    def path(self, name: str) -> str:
        """Address of a stage's commit."""
        return f"commits/{name}.json"

    def find(self, name: str, key: str | None = None) -> Commit | None:
        """The commit of stage `name`, if there is one (and its key is `key`)."""
        if not self.store.exists(self.path(name)):
            return None
        value = self.store.read_json(self.path(name))
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
        names = [path.removeprefix("commits/").removesuffix(".json") for path in self.store.list("commits")]
        found = [commit for name in names if name and (commit := self.find(name)) is not None]
        return sorted(found, key=lambda commit: commit.created)

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

        Raises:
            ArtifactError: a committed object is gone or has another size.
        """
        key = digest({"stage": name, **inputs})
        known = self.find(name, key)
        if known is not None:
            self.verify(known)
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
            },
            created=time.time(),
        )
        self._check_owner()
        self.store.write_json(self.path(name), asdict(commit))
        return commit

    def verify(self, commit: Commit) -> None:
        """Raises ArtifactError: an object the commit lists is missing or has another size than when committed."""
        wanted = {part["path"]: part["bytes"] for parts in commit.tables.values() for part in parts}
        wanted.update({path: info["bytes"] for path, info in commit.files.items()})
        folders = {path.rsplit("/", 1)[0] for path in wanted}
        found: dict[str, int] = {}
        for folder in folders:
            found.update(self.store.list(folder))
        for path, size in wanted.items():
            if found.get(path) != size:
                has = "is missing" if path not in found else f"has {found[path]} bytes"
                raise ArtifactError(
                    f"{self.store.url(path)} {has}, but commit {commit.name} recorded {size} bytes; something outside "
                    f"hardmine changed it. Delete {self.store.url(self.path(commit.name))} and run the same command "
                    f"again to make this stage anew"
                )
