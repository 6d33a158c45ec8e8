"""What each micro-step and each validation showed, as JSON lines while a round trains and as one table at its end.

    <folder>/telemetry.jsonl         the newest lines, as a rule all of them
    <folder>/telemetry-0001.jsonl …  the lines before those, oldest first, once a run is long
    <folder>/telemetry.parquet       at the end: a row per micro-step

A line is {"round", "epoch", "step", "loss", …} of a micro-step, or {"event": "validation", "step", …} of what happened
after it. Figures have six significant digits; one that is not finite (a gradient's norm that overflowed) is null, so that
every line is JSON.

An object store cannot append, so a flush writes a whole object again. To keep that cheap, what was flushed is set aside
under a number, and never written again, once it is larger than 16 MB (about 25,000 steps). `read_lines` puts the pieces
together.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.errors import ArtifactError
from cluster.storage.digests import described, read_checked
from cluster.storage.store import Store
from cluster.tables.tables import write_part
from training.telemetry.trackers import Trackers

Listed = Mapping[str, Mapping[str, Any]]
"""Files as a commit lists them: address -> "bytes" and "sha256"."""
SEGMENT_BYTES = 16 * 2**20
"""Flushed text larger than this is set aside."""
NUMBERED = re.compile(r"telemetry-\d{4,}\.jsonl")
FILES = re.compile(r"telemetry(-\d{4,})?\.jsonl|telemetry\.parquet")


class Telemetry:
    """The lines of one round; only the active rank keeps and writes them."""

    def __init__(
        self, store: Store, folder: str, *, active: bool, trackers: Trackers | None = None, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        """Args:
        active: this rank keeps and writes; the others only remember the losses.
        trackers: get the same figures.
        segment_bytes: flushed text larger than this is set aside.
        """
        self._store, self._folder, self._active = store, folder, active
        self._trackers, self._segment_bytes = trackers, segment_bytes
        self._aside: list[str] = []  # paths of the numbered objects
        self._text = bytearray()  # what belongs into telemetry.jsonl
        self._flushed = 0  # bytes of it that are in storage
        self._lines, self._step = 0, 0
        self._losses: list[float] = []
        self._tidy = False

    @property
    def lines(self) -> int:
        """Lines so far, of steps and of events: what `resume` of a later attempt takes."""
        return self._lines

    def resume(self, lines: int) -> None:
        """Take over the first `lines` lines of an interrupted attempt; what it wrote after them is written anew.

        Raises:
            ArtifactError: fewer lines are in storage.
        """
        self._aside, self._text, self._flushed, self._tidy = [], bytearray(), 0, False
        self._lines, self._step, self._losses = 0, 0, []
        for path, text in _segments(self._store, self._folder, {}) if lines else []:
            kept = text.splitlines(keepends=True)[: lines - self._lines]
            self._lines += len(kept)
            for line in kept:
                self._note(json.loads(line))
            whole = sum(map(len, kept)) == len(text)
            if whole and NUMBERED.fullmatch(_name(path)):
                self._aside.append(path)
            elif self._active:
                self._text += b"".join(kept)
            if self._lines == lines:
                return
        if self._lines < lines:
            raise ArtifactError(
                f"{self._store.url(self._folder)}: expected {lines} lines in telemetry*.jsonl, as many as "
                f"there were when the training state was saved, found {self._lines}; delete the folder "
                f"`engine` beside them and run the same command again: this round then starts anew"
            )

    def add(self, figures: Mapping[str, Any]) -> None:
        """One micro-step: `loss`, `step` (the optimizer step, from 1) and any other figures."""
        rounded = {name: _rounded(value) for name, value in figures.items()}
        self._append(rounded)
        if self._trackers is not None:
            self._trackers.log(rounded)

    def event(self, figures: Mapping[str, Any], *, name: str = "validation") -> None:
        """What happened after the last step, e.g. {"recall": 0.41}; it is no step and takes no part in `mean_loss`.

        `step` is that of the last line where `figures` has none. Call it on every rank, as `add`, or on the active one.
        """
        rounded = {"event": name, "step": self._step} | {key: _rounded(value) for key, value in figures.items()}
        self._append(rounded)
        if self._trackers is not None:
            self._trackers.event(rounded)

    def flush(self) -> None:
        """Write all lines so far. At most `segment_bytes` and what is new since the last flush, however long the run."""
        if not self._active:
            return
        if self._flushed >= self._segment_bytes and len(self._text) > self._flushed:
            path = f"{self._folder}/telemetry-{len(self._aside) + 1:04d}.jsonl"
            self._store.write_bytes(path, bytes(self._text[: self._flushed]))
            self._aside.append(path)
            del self._text[: self._flushed]
        self._store.write_bytes(f"{self._folder}/telemetry.jsonl", bytes(self._text))
        self._flushed = len(self._text)
        if not self._tidy:  # only after the write: until then what is deleted here may be the only copy
            for path in _paths(self._store, self._folder):
                if NUMBERED.fullmatch(_name(path)) and path not in self._aside:
                    self._store.delete(path)
            self._tidy = True
        if self._trackers is not None:
            self._trackers.flush()

    def write_parquet(self) -> None:
        """Flush, and write telemetry.parquet (`steps_table`). Takes some seconds for 100,000 steps."""
        if self._active:
            self.flush()
            table = steps_table(
                line for text in (*map(self._store.read_bytes, self._aside), bytes(self._text)) for line in text.splitlines()
            )
            write_part(self._store, f"{self._folder}/telemetry.parquet", table)

    def mean_loss(self) -> float:
        """Mean loss of the last quarter of the steps: what the training loss came down to."""
        if not self._losses:
            return float("nan")
        return float(np.mean(self._losses[-max(1, len(self._losses) // 4) :]))

    def _append(self, figures: dict[str, Any]) -> None:
        # the mean is over rounded figures, so that a resumed run, which reads them back, comes to the same one
        self._note(figures)
        self._lines += 1
        if self._active:
            self._text += json.dumps(figures, allow_nan=False).encode() + b"\n"

    def _note(self, figures: Mapping[str, Any]) -> None:
        self._step = int(figures.get("step", self._step))
        if "event" not in figures:
            self._losses.append(math.nan if figures["loss"] is None else float(figures["loss"]))


def telemetry_files(store: Store, folder: str) -> dict[str, dict[str, Any]]:
    """Everything telemetry left in a folder, as a commit lists it: address -> {"bytes", "sha256"}; perhaps nothing."""
    return {path: described(store.read_bytes(path)) for path in _paths(store, folder)}


def _paths(store: Store, folder: str) -> list[str]:
    return [path for path in store.list(folder) if path.rpartition("/")[0] == folder and FILES.fullmatch(_name(path))]


def read_lines(store: Store, folder: str, listed: Listed | None = None) -> list[dict[str, Any]]:
    """All lines of a round, oldest first, of steps and of events.

    Args:
        listed: the files of the round's commit, if it has one: what they list is checked.

    Raises:
        ArtifactError: there is no telemetry. DamagedObject: it is not what was committed.
    """
    return [json.loads(line) for _, text in _segments(store, folder, listed or {}) for line in text.splitlines()]


def steps_table(lines: Iterable[bytes | str]) -> pa.Table:
    """The lines as a table with a row per micro-step, in their order.

    Returns:
        A column per figure: int64 where all values are integers, string where one is text, else float32; null where a
        line has no such figure. Figures of an event stand, as e.g. `validation_recall`, in the row of the step before
        it; those of an event before the first step have a row of their own.
    """
    columns: dict[str, list[Any]] = {}
    rows = 0
    for line in lines:
        figures = json.loads(line)
        event = figures.pop("event", None)
        if event is not None:
            step, epoch = figures.pop("step", 0), figures.pop("epoch", None)
            figures = {f"{event}_{name}": value for name, value in figures.items()}
            if not rows:
                figures |= {"step": step} | ({} if epoch is None else {"epoch": epoch})
        if event is None or not rows:
            rows += 1
        for name, value in figures.items():
            column = columns.setdefault(name, [])
            column.extend([None] * (rows - len(column)))
            column[rows - 1] = value
    return pa.table({name: _column(values + [None] * (rows - len(values))) for name, values in columns.items()})


def _column(values: list[Any]) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    if kinds and kinds <= {int, bool}:
        return pa.array([None if value is None else int(value) for value in values], pa.int64())
    if kinds <= {int, bool, float}:
        return pa.array([None if value is None else float(value) for value in values], pa.float32())
    return pa.array([value if value is None or isinstance(value, str) else json.dumps(value) for value in values], pa.string())


def _segments(store: Store, folder: str, listed: Listed) -> Iterable[tuple[str, bytes]]:
    """(path, text) of the telemetry objects, oldest first."""

    def read(path: str) -> bytes:
        return read_checked(store, path, listed[path]["sha256"]) if path in listed else store.read_bytes(path)

    newest = f"{folder}/telemetry.jsonl"
    numbered = [path for path in _paths(store, folder) if NUMBERED.fullmatch(_name(path))]
    first = b""
    for path in sorted(numbered, key=lambda path: (len(path), path)):
        text = read(path)
        first = text.partition(b"\n")[0]
        yield path, text
    text = read(newest)
    # a writer that was killed after setting lines aside, and before it wrote the others, left those lines here as well
    if not numbered or text.partition(b"\n")[0] != first:
        yield newest, text


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _rounded(value: Any) -> Any:
    """Six digits that count: a learning rate of 1.3e-6 must not become 1e-6."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None
