"""Progress lines: workers post what they have done on a small actor, the driver prints it.

On a terminal one live line is rewritten; in a log a plain line is written every few seconds, or with HARDMINE_LOG_JSON a line of
JSON with the time, the run and the stage. All of it goes to standard error: standard output belongs to results.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TextIO

from cluster.session.pace import Message, Pace
from cluster.storage.usage import start_usage

LOG_JSON = "HARDMINE_LOG_JSON"
"""Set: lines are JSON; `hardmine --log-json` sets it."""
PLAIN_EVERY_S = 10.0
LIVE_EVERY_S = 0.5
OFTEN_S = 0.25
"""Least time between two messages of a sender that `post_often` lets pass."""
SILENT_S = 60.0
"""After this long without a message from a worker, the line says what the cluster has left."""


class Mailbox:
    """The last message of each sender; runs as a Ray actor."""

    def __init__(self) -> None:
        self._messages: dict[str, Message] = {}

    def post(self, sender: str, message: Message) -> None:
        """Replace the sender's message."""
        self._messages[sender] = message.after(self._messages.get(sender))

    def take(self) -> dict[str, Message]:
        """All messages since the last call."""
        messages, self._messages = self._messages, {}
        return messages


class Progress:
    """What a driver tells a person while it works; `None` mailbox until Ray runs."""

    def __init__(self, *, stream: TextIO | None = None, quiet: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._json = bool(os.environ.get(LOG_JSON))
        self._live = self._stream.isatty() and not quiet and not self._json
        self.run, self.stage = "", ""
        """What lines of JSON name."""
        self.pace: Pace | None = None
        """Of the stage that runs now."""
        self.mailbox: Any = None
        self.usage: Any = None
        """The actor that counts what processes read and write."""
        self._lock = threading.Lock()
        self._line_shown = _LiveLine()
        self._other: Progress | None = None

    @property
    def shared(self) -> bool:
        """Whether two stages run at once."""
        return self._other is not None

    @contextmanager
    def beside(self) -> Iterator[Progress]:
        """A second voice with a mailbox of its own, for a stage that runs beside this one's."""
        other = copy.copy(self)
        other.stage, other.pace, other.mailbox = "", None, _start_mailbox()
        self._other, other._other = other, self
        try:
            yield other
        finally:
            self._other = None

    def open_mailbox(self) -> None:
        """Start the actor that workers post to; Ray must run."""
        self.mailbox = _start_mailbox()
        self.usage = start_usage()

    def now(self) -> dict[str, Any]:
        """The stage that runs: its name, its seconds so far, about how many it still takes (None: not known); {}: none runs.

        Where two run at once, "beside" is the same of the second.
        """
        other = self._other
        running = [own for own in (self._now(), other._now() if other else {}) if own]
        return dict(running[0]) | ({"beside": running[1]} if running[1:] else {}) if running else {}

    def _now(self) -> dict[str, Any]:
        pace, now = self.pace, time.monotonic()
        if pace is None:
            return {}
        left = pace.left_s(now)
        return {
            "stage": self.stage,
            "seconds": round(pace.seconds(now), 1),
            "left_seconds": None if left is None else round(left, 1),
        }

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._quiet:
            return
        with self._lock:
            self._clear()
            self._stream.write(self._line(text) + "\n")
            self._stream.flush()

    def watch(self, stage: str) -> Watch:
        """Show what workers post until the returned context is left."""
        return Watch(self, stage)

    def show(self, text: str) -> None:
        """A line that the next one replaces (on a terminal), or a plain line."""
        if self._quiet:
            return
        with self._lock:
            if self._live:
                line = self._line_shown
                line.texts[id(self)] = text
                text = " |".join(line.texts.values())
                self._stream.write("\r" + text.ljust(line.width)[:200])
                line.width = len(text)
            else:
                self._stream.write(self._line(text) + "\n")
            self._stream.flush()

    def end_live(self) -> None:
        """What this voice showed is no longer true; a line beside it stays."""
        with self._lock:
            self._clear()
            self._line_shown.texts.pop(id(self), None)

    @property
    def interval_s(self) -> float:
        """How often a changing figure is worth showing."""
        return LIVE_EVERY_S if self._live else PLAIN_EVERY_S

    def _line(self, text: str) -> str:
        return log_line(text, run=self.run, stage=self.stage) if self._json else text

    def _clear(self) -> None:
        line = self._line_shown
        if self._live and line.width:
            self._stream.write("\r" + " " * line.width + "\r")
            line.width = 0


@dataclass
class _LiveLine:
    """What a terminal shows, of one voice or of two."""

    texts: dict[int, str] = field(default_factory=dict)
    width: int = 0


def _start_mailbox() -> Any:
    import ray

    return ray.remote(num_cpus=0, max_restarts=5)(Mailbox).remote()


def log_line(text: str, *, run: str = "", stage: str = "", level: str = "") -> str:
    """A line of progress, or an error, as JSON: time (UTC), level, run, stage, message."""
    usual = "warning" if text.startswith("!") else "info"
    entry = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "level": level or usual, "run": run, "stage": stage}
    return json.dumps(entry | {"message": " ".join(text.lstrip("!·✓ ").split())}, ensure_ascii=False)


class Watch:
    """A thread that prints the mailbox while a stage runs."""

    def __init__(self, progress: Progress, stage: str) -> None:
        self._progress = progress
        self._stage = stage
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> Watch:
        self._progress.pace = Pace(time.monotonic())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._progress.pace = None
        self._thread.join(timeout=5)
        self._progress.end_live()

    def _run(self) -> None:
        started = time.monotonic()
        self._take()  # what the stage before left
        pace = self._progress.pace or Pace(started)
        heard = started
        while not self._stop.wait(self._progress.interval_s):
            messages = self._take()
            now = time.monotonic()
            pace.hear(messages, now)
            heard = now if messages else heard
            text = pace.text or "starting"
            if now - heard > SILENT_S:
                text += f" · nothing new for {now - heard:.0f} s{_left()}"
            self._progress.show(f"  {self._stage}  {now - started:5.0f} s  {text}")

    def _take(self) -> dict[str, Message]:
        import ray

        if self._progress.mailbox is None or not ray.is_initialized():
            return {}
        try:
            messages: dict[str, Message] = ray.get(self._progress.mailbox.take.remote(), timeout=5)
        except (ray.exceptions.RayError, TimeoutError):  # progress never stops a run
            return {}
        return messages


def _left() -> str:
    """What a stage that waits may be waiting for."""
    import ray

    try:
        has, free = ray.cluster_resources(), ray.available_resources()
    except Exception:  # progress never stops a run
        return ""
    waiting = _waiting()
    kinds = " and ".join(f"{free.get(kind, 0):.0f} of {has[kind]:.0f} {kind}s" for kind in ("CPU", "GPU") if has.get(kind))
    return (f"; {kinds} are free" if kinds else "; the cluster has no CPU left") + waiting


def _waiting() -> str:
    """What tasks and actors ask for that no node has free, e.g. "; 2 × (4 CPU) wait for room"."""
    import ray

    try:
        from ray.autoscaler.v2.sdk import get_cluster_resource_state

        state = get_cluster_resource_state(ray._private.worker.global_worker.gcs_client)
        asked = [(each.count, dict(each.request.resources_bundle)) for each in state.pending_resource_requests]
    except Exception:  # progress never stops a run
        return ""
    listed = [(count, ", ".join(f"{amount:g} {kind}" for kind, amount in bundle.items())) for count, bundle in asked if bundle]
    shown = [f"{count} × ({what})" for count, what in listed]
    return f"; {', '.join(shown[:3])} wait for room" if shown else ""


def post(mailbox: Any, sender: str, text: str, *, done: float = 0.0, of: float = 0.0) -> None:
    """Post from a worker; does nothing without a mailbox. `done` and `of`: see `Message`."""
    if mailbox is not None:
        mailbox.post.remote(sender, Message(text, done, of))


_posted: dict[str, float] = {}
"""Sender -> when its last message passed, in this process."""


def post_often(mailbox: Any, sender: str, text: str, *, done: float = 0.0, of: float = 0.0) -> None:
    """Post from a loop of milliseconds: most messages are dropped, since each is a call of another process."""
    now = time.monotonic()
    if now - _posted.get(sender, -OFTEN_S) >= OFTEN_S:
        _posted[sender] = now
        post(mailbox, sender, text, done=done, of=of)
