"""One run has one writer: the lease a driver holds on a run while it works.

The lease is one small object with the owner's name and a beat that grows. A second driver watches the beat for a
while: if it moves, the owner is alive and the second driver is refused; if it stands still, the owner is dead and its
lease is taken over. No clocks are compared between machines. Every write is conditional on the version that was read, so of
several drivers that want a dead one's lease only one gets it, and a lease that is given back is never another driver's.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from cluster.errors import ArtifactError, ClusterError, ConfigError, HardmineError
from cluster.session.pace import duration
from cluster.storage.conditional import give_up, read_version, replace
from cluster.storage.records import SMALL
from cluster.storage.store import Store

PATH = "writer.json"
BEAT_S = 5.0
WATCH_S = 12.0
TRIES = 10
"""How often a lease is tried that changes while it is taken."""


@dataclass(frozen=True)
class Owner:
    """Who holds a lease."""

    token: str
    host: str
    pid: int
    started: float
    beat: int
    now: dict[str, Any] = field(default_factory=dict)
    """The stage that runs; see `Progress.now`."""

    @classmethod
    def here(cls) -> Owner:
        """This process as a new owner."""
        return cls(uuid.uuid4().hex, socket.gethostname(), os.getpid(), time.time(), 0)

    def describe(self) -> str:
        """Name and age for a person."""
        return f"process {self.pid} on {self.host}, running for {duration(time.time() - self.started)}"


def is_gone(owner: Owner) -> bool:
    """True only if the owner certainly is dead: same host, and no such process."""
    if owner.host != socket.gethostname():
        return False
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _is_zombie(owner.pid)


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return False


class Lease:
    """The right to write a run; use as a context manager."""

    def __init__(
        self,
        store: Store,
        *,
        takeover: bool = False,
        watch_s: float = WATCH_S,
        on_lost: Callable[[], None] = lambda: None,
        now: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        """A lease that is not held yet.

        Args:
            takeover: take the lease even from an owner that may be alive.
            watch_s: how long to watch a beat before it counts as standing still.
            on_lost: called once, from the lease's own thread, when another driver has taken the run.
            now: what the driver does; each beat tells it.
        """
        self.store = store
        self.owner = Owner.here()
        self._takeover = takeover
        self._watch_s = watch_s
        self._on_lost = on_lost
        self._now = now
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._version = ""
        self.lost: str | None = None

    def __enter__(self) -> Lease:
        for _ in range(TRIES):
            if self._take():
                break
        else:
            raise ClusterError(
                f"could not take the lease {self.store.url(PATH)}: it changed {TRIES} times meanwhile; if no other driver "
                f"starts or ends on this run, the storage does not keep conditional writes: delete that object and run again"
            )
        self.check()
        self._thread.start()
        return self

    def _take(self) -> bool:
        """Whether the lease is ours now; False: it changed while we looked. Raises ConfigError: another driver has it."""
        if self.store.create(PATH, self._encode(self.owner)):
            self._version = read_version(self.store, PATH)[1]
            return True
        try:
            data, version = read_version(self.store, PATH)
        except ArtifactError:  # given back
            return False
        other = _decode(data)
        # a PUT that was retried after a lost answer finds its own object there
        mine = other is not None and other.token == self.owner.token
        if other is not None and not mine and not self._takeover and not is_gone(other) and self._moves(other):
            raise ConfigError(self._refusal(other))
        taken = version if mine else replace(self.store, PATH, self._encode(self.owner), version)
        if taken is not None:
            self._version = taken
            return True
        now = self._read()
        beaten = other is not None and now is not None and now.token == other.token  # by its owner, in this moment
        if now is not None and now.token != self.owner.token and not (self._takeover and beaten):
            raise ConfigError(self._refusal(now))
        return False

    def _refusal(self, other: Owner) -> str:
        return (
            f"{self.store.root} is being written by {other.describe()}; a run has one writer. Wait for it, or "
            f"stop it; if you are sure that it is dead, run again with --takeover"
        )

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=BEAT_S)
        with suppress(HardmineError):  # the storage is gone: whoever comes next sees a beat that stands still
            if give_up(self.store, PATH, self._version):
                return
            data, version = read_version(self.store, PATH)
            now = _decode(data)
            if now is not None and now.token == self.owner.token:  # the answer to the last beat was lost
                give_up(self.store, PATH, version)

    def check(self) -> None:
        """Raises ClusterError: another driver has taken this run over."""
        other = self._read()
        if other is None or other.token != self.owner.token:
            name = other.describe() if other else "someone who has finished"
            self.lost = name
            raise ClusterError(
                f"this driver lost {self.store.root} to {name}; nothing more is written by this one. "
                f"What it had committed is kept; follow the other one with `hardmine status`"
            )

    def _moves(self, other: Owner) -> bool:
        deadline = time.monotonic() + self._watch_s
        while time.monotonic() < deadline:
            time.sleep(min(1.0, self._watch_s / 4))
            now = self._read()
            if now is None:
                return False
            if now.token != other.token or now.beat != other.beat:
                return True
        return False

    def _keep(self) -> None:
        beat = 0
        while not self._stop.wait(BEAT_S):
            beat += 1
            try:
                self._beat(beat)
            except HardmineError:
                if self.lost is not None:
                    if not self._stop.is_set():  # else it is we who gave it back
                        self._on_lost()
                    return

    def _beat(self, beat: int) -> None:
        version = replace(
            self.store, PATH, self._encode(dataclasses.replace(self.owner, beat=beat, now=self._now())), self._version
        )
        if version is None:
            self.check()
            # still ours: the answer to an earlier beat was lost
            version = read_version(self.store, PATH)[1]
        self._version = version

    def _read(self) -> Owner | None:
        try:
            return _decode(self.store.read_bytes(PATH, SMALL))
        except ArtifactError:
            return None

    @staticmethod
    def _encode(owner: Owner) -> bytes:
        return json.dumps(vars(owner)).encode()


def _decode(data: bytes) -> Owner | None:
    try:
        return Owner(**json.loads(data))
    except (TypeError, ValueError):
        return None
