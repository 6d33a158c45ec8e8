"""What a process reads and writes in storage, and the memory it takes: counted here, and sent to an actor where Ray runs.

Every process counts for itself. A moment after a request, what was counted since the last time goes to the one `Usage` actor of
the driver, from which the driver takes it at the end of each stage. Nothing is added to tasks, and nothing waits for it.
"""

from __future__ import annotations

import io
import sys
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ACTOR = "hardmine-usage"
SEND_AFTER_S = 0.02
"""How long counts are gathered before they are sent."""


@dataclass
class Used:
    """Of one kind of process."""

    requests: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    peak_bytes: int = 0
    """Highest resident memory of one such process."""

    def add(self, other: Used) -> None:
        """Count another process, or a later time, too."""
        self.requests += other.requests
        self.read_bytes += other.read_bytes
        self.written_bytes += other.written_bytes
        self.peak_bytes = max(self.peak_bytes, other.peak_bytes)


class Usage:
    """What all processes have sent since it was last taken; runs as a Ray actor."""

    def __init__(self) -> None:
        self._counts: dict[str, Used] = {}

    def add(self, kind: str, counts: Used) -> None:
        """What a process has counted."""
        self._counts.setdefault(kind, Used()).add(counts)

    def take(self) -> dict[str, dict[str, int]]:
        """By kind of process; the next call gives what came after it."""
        counts, self._counts = self._counts, {}
        return {kind: asdict(each) for kind, each in sorted(counts.items())}


class Meter:
    """The counts of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts, self._kind = Used(), ""
        self._waiting = False
        self._session, self._actor = "", None

    def count(self, *, requests: int = 1, read: int = 0, written: int = 0) -> None:
        """Count a request and its bytes."""
        with self._lock:
            self._counts.requests += requests
            self._counts.read_bytes += read
            self._counts.written_bytes += written
            if self._waiting or not _has_ray():
                return
            self._waiting, self._kind = True, process_kind()
        timer = threading.Timer(SEND_AFTER_S, self.send)
        timer.daemon = True
        timer.start()

    def send(self) -> None:
        """Send what was counted."""
        with self._lock:
            counts, self._counts = self._counts, Used()
            kind, self._waiting = self._kind or process_kind(), False
        counts.peak_bytes = take_peak()
        actor = self._find()
        if actor is not None:
            with suppress(Exception):  # Ray may end at any time; what is lost is a count
                actor.add.remote(kind, counts)

    def _find(self) -> Any:
        """The actor, looked up once for each Ray session; None: there is none."""
        import ray

        with suppress(Exception):
            session = _session()
            if session != self._session:  # the first counts may come before the actor: it is looked up again
                self._session, self._actor = session, ray.get_actor(ACTOR)
            return self._actor
        return None


METER = Meter()


class Counted(io.RawIOBase):
    """A stream whose bytes are counted as they are read."""

    def __init__(self, stream: Any, remote: bool) -> None:
        """Args: remote: every read of new bytes is a request."""
        self._stream, self._requests = stream, int(remote)

    def read(self, size: int = -1, /) -> bytes:
        """As of the stream."""
        data: bytes = self._stream.read(size)
        METER.count(requests=self._requests, read=len(data))
        return data

    def readinto(self, buffer: Any, /) -> int:
        """As of the stream."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """As of the stream."""
        return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        """As of the stream."""
        return int(self._stream.tell())

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """As of the stream."""
        if not self.closed:
            self._stream.close()
        super().close()


def start_usage() -> Any:
    """The actor of this driver's Ray session, started where there is none; it lives as long as the session."""
    import ray

    session = _session()
    if session not in _started:
        _started.clear()
        _started[session] = ray.remote(num_cpus=0, max_restarts=5)(Usage).options(name=ACTOR, get_if_exists=True).remote()
    return _started[session]


_started: dict[str, Any] = {}
"""Ray session -> its actor; the handle keeps it alive."""


def _session() -> str:
    import ray

    context = ray.get_runtime_context()
    return f"{context.gcs_address} {context.get_job_id()}"


def _has_ray() -> bool:
    return "ray" in sys.modules and bool(getattr(sys.modules["ray"], "is_initialized", lambda: False)())


def process_kind() -> str:
    """What this process is: "driver", or the name of the task or actor that a Ray worker runs."""
    with suppress(OSError):
        title = Path("/proc/self/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
        if title.startswith("ray::"):
            return title.removeprefix("ray::").partition("(")[0].partition(".")[0]
    return "driver"


def take_peak() -> int:
    """The highest resident memory of this process since the last call, in bytes; on systems without /proc, since its start."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
        Path("/proc/self/clear_refs").write_text("5")
        return peak
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
