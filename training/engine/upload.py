"""One checkpoint on its way to storage: a thread per rank, no collectives, and what is deleted afterwards.

The threads meet in storage only: rank 0's writes state.json after it has seen the manifest of every rank.
"""

from __future__ import annotations

import re
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cluster.errors import ArtifactError, ClusterError, HardmineError, one_paragraph
from cluster.storage.model_folders import Manifest, upload_folder
from cluster.storage.records import read_record, write_record
from cluster.storage.store import Store
from training.engine.engine import Place
from training.engine.kept_model import KeptModel

STATE = "state.json"
NAME = re.compile(r"step-(\d{6,})-e(\d{2,})")
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0

Mark = tuple[int, int]
"""(epochs finished, optimizer steps finished): the order of checkpoints."""


def name_of(mark: Mark) -> str:
    """Name of a checkpoint's folder, e.g. "step-000120-e02"."""
    epoch, step = mark
    return f"step-{step:06d}-e{epoch:02d}"


def complete(paths: Iterable[str], root: str) -> list[Mark]:
    """The checkpoints below the folder `root` that have a state.json among the objects `paths`, oldest first."""
    marks = []
    for path in paths:
        name, _, rest = path.removeprefix(f"{root}/").partition("/")
        match = NAME.fullmatch(name)
        if match and rest == STATE:
            marks.append((int(match[2]), int(match[1])))
    return sorted(marks)


def leftovers(paths: Iterable[str], root: str, current: Mark, attempt: str) -> list[str]:
    """Prefixes below `root` to delete: everything but the state.json of `current` and the files of its `attempt`."""
    prefixes = set()
    for path in paths:
        name, _, rest = path.removeprefix(f"{root}/").partition("/")
        if name != name_of(current):
            prefixes.add(f"{root}/{name}")
        elif rest != STATE and rest.split("/")[0] != attempt:
            prefixes.add(f"{root}/{name}/{rest.split('/')[0]}")
    return sorted(prefixes)


class Upload(threading.Thread):
    """Stores one rank's part of a checkpoint; on rank 0 it then completes the checkpoint and deletes what it replaces.

    A daemon: a process that ends does not wait for a storage that is away.
    """

    def __init__(
        self,
        store: Store,
        root: str,
        attempt: str,
        local: tempfile.TemporaryDirectory[str],
        place: Place,
        *,
        record: dict[str, Any],
        superseded: Sequence[str],
        deadline_s: float,
        model: KeptModel | None = None,
    ) -> None:
        """Args:
        root: folder of all checkpoints; attempt: a name that no other save has.
        local: this rank's files; removed as soon as they are stored, or cannot be.
        record: what state.json says, but for `files`.
        superseded: prefixes to delete at the end, unless the record's `best` names them.
        model: stored before this rank's part, so that a complete checkpoint never names a model that is not there.
        deadline_s: how long rank 0 waits for the other ranks, after its own part is stored.
        """
        super().__init__(name="checkpoint", daemon=True)
        self.store, self.root, self.attempt, self.place = store, root, attempt, place
        self.mark, self.record = (record["epoch"], record["step"]), record
        self.folder = f"{root}/{name_of(self.mark)}"
        self.stored = threading.Event()
        """This rank's part is in storage, or `failure` says why not."""
        self.cancelled = threading.Event()
        """Set from outside: do not complete the checkpoint."""
        self.failure: str | None = None
        """What went wrong, in one paragraph."""
        self.seconds = 0.0
        """From the start to the end of the thread."""
        self._local, self._superseded, self._deadline_s, self._model = local, superseded, deadline_s, model

    def run(self) -> None:
        """The thread; never raises."""
        started = time.monotonic()
        try:
            self._store_part()
            self.stored.set()
            if self.place.rank == 0:
                files = self._await_parts()
                if files is not None:
                    write_record(self.store, f"{self.folder}/{STATE}", self.record | {"files": files})
                    self._clean()
        except Exception as error:  # the edge of the thread: Checkpointer.wait raises it on all ranks
            kind = "" if isinstance(error, HardmineError) else f"{type(error).__name__}: "
            self.failure = kind + one_paragraph(str(error))
        finally:
            self.seconds = time.monotonic() - started
            self.stored.set()

    def _store_part(self) -> None:
        prefix = f"{self.folder}/{self.attempt}/rank-{self.place.rank}"
        try:
            if self._model is not None:
                self._model.store(self.store)
            manifest = upload_folder(Path(self._local.name), self.store, prefix)
        finally:
            self._local.cleanup()
        write_record(self.store, f"{prefix}.json", manifest)

    def _await_parts(self) -> Manifest | None:
        """All ranks' files; None: cancelled."""
        paths = [f"{self.folder}/{self.attempt}/rank-{rank}.json" for rank in range(self.place.world)]
        deadline, pause = time.monotonic() + self._deadline_s, SHORTEST_PAUSE_S
        while not self.cancelled.is_set():
            there = self.store.list(f"{self.folder}/{self.attempt}")
            missing = [rank for rank, path in enumerate(paths) if path not in there]
            if not missing:
                return {name: info for path in paths for name, info in read_record(self.store, path).items()}
            if time.monotonic() > deadline:
                raise ClusterError(f"rank(s) {missing} did not store their part within {self._deadline_s:.0f} s of rank 0's")
            self.cancelled.wait(pause)
            pause = min(1.5 * pause, LONGEST_PAUSE_S)
        return None

    def _clean(self) -> None:
        paths = self.store.list(self.root)
        # also a later checkpoint, left from before training went back or started anew: it would hide this one
        replaced = [mark for mark in complete(paths, self.root) if mark != self.mark]
        models = {*self._superseded, *(self._best_model(mark) for mark in replaced if mark < self.mark)}
        models -= {None, self.record["best"].get("prefix")}
        for mark in replaced:  # first: killed in between, no state.json may be left of a checkpoint without files
            self.store.delete(f"{self.root}/{name_of(mark)}/{STATE}")
        for prefix in (*leftovers(paths, self.root, self.mark, self.attempt), *sorted(models)):
            self.store.delete(prefix)

    def _best_model(self, mark: Mark) -> Any:
        try:
            return read_record(self.store, f"{self.root}/{name_of(mark)}/{STATE}")["best"].get("prefix")
        except ArtifactError:  # damaged: it protects nothing, and must not keep later checkpoints from being stored
            return None
