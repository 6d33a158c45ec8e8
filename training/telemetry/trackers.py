"""Trackers: TensorBoard, MLflow and Weights & Biases get the figures of a round too, and can neither stop nor slow it.

Each tracker has one daemon thread with a bounded queue: what the training loop does is to append to the queue. A tracker
that raises is off from then on, with one line that says so; one that is too slow loses its oldest records; one that hangs
is left behind when the round ends. telemetry.jsonl has every figure all the same. The packages themselves are imported
when the trackers are made, before the first step: an import in a thread could meet one of the loop's own half way.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cluster.errors import one_paragraph
from cluster.storage.store import Store
from training.telemetry.tracker_writers import WRITERS, About, Record, Writer, identified

QUEUE_RECORDS = 10_000
"""Records that wait for one tracker; of more the oldest are dropped and counted."""
BATCH_RECORDS = 500
"""Records that a writer gets at once."""
CLOSE_S = 10.0
"""How long the end of a round waits for all trackers together."""
MODULES = {"tensorboard": "torch.utils.tensorboard", "mlflow": "mlflow", "wandb": "wandb"}
TRAIN = {"epoch", "learning_rate", "temperature", "gradient_norm", "gradient_skipped"}
SPEED = {"items", "tokens", "padding"}
SECRETS = re.compile(r"KEY|TOKEN|PASSWORD|SECRET")

Say = Callable[[str], None]


class Line:
    """The queue and thread of one tracker."""

    def __init__(self, name: str, start: Callable[[], Writer], say: Say, *, capacity: int = QUEUE_RECORDS) -> None:
        """Args: start: makes the writer, in the thread; say: gets the one warning; capacity: records that may wait."""
        self.name = name
        self.dropped = 0
        self._start, self._say = start, say
        self._queue: deque[Record] = deque()
        self._capacity = capacity
        self._wake = threading.Condition()
        self._flush = self._closing = self._failed = self._off = False
        self._thread = threading.Thread(target=self._run, name=f"tracker-{name}", daemon=True)
        self._thread.start()

    def put(self, record: Record) -> None:
        """Leave a record; never waits."""
        with self._wake:
            if self._off:
                return
            if len(self._queue) >= self._capacity:
                self._queue.popleft()
                self.dropped += 1
            self._queue.append(record)
            self._wake.notify()

    def flush(self) -> None:
        """Ask for a flush once the queue is empty; never waits."""
        with self._wake:
            self._flush = True
            self._wake.notify()

    def end(self, *, failed: bool) -> None:
        """Ask for the end once the queue is empty; never waits."""
        with self._wake:
            self._closing, self._failed = True, failed
            self._wake.notify()

    def join(self, timeout_s: float) -> None:
        """Wait for the end; after `timeout_s` the thread is left behind."""
        self._thread.join(max(0.0, timeout_s))
        with self._wake:
            waiting, self._off, off = len(self._queue), True, self._off
            self._queue.clear()
        if off:
            return
        if self._thread.is_alive():
            self._warn(
                f"tracker {self.name} did not finish in time, {waiting} records were not taken; they are in telemetry.jsonl"
            )
        elif self.dropped:
            self._warn(f"tracker {self.name} was too slow for {self.dropped} records; they are in telemetry.jsonl")

    def _run(self) -> None:
        try:
            writer = self._start()
            while True:
                records, flush, closing = self._take()
                if records:
                    writer.write(records)
                if flush:
                    writer.flush()
                if closing:
                    writer.close(failed=self._failed)
                    return
        except BaseException as error:  # the edge of the thread: whatever a tracker does, training goes on
            with self._wake:
                told, self._off = self._off, True
                self._queue.clear()
            if not told:
                self._warn(
                    f"tracker {self.name} is off from here on ({type(error).__name__}: "
                    f"{without_secrets(str(error))[:300]}); training goes on, and telemetry.jsonl has every figure"
                )

    def _take(self) -> tuple[list[Record], bool, bool]:
        with self._wake:
            while not (self._queue or self._flush or self._closing):
                self._wake.wait()
            records = [self._queue.popleft() for _ in range(min(BATCH_RECORDS, len(self._queue)))]
            if self._queue:
                return records, False, False
            flush, self._flush = self._flush, False
            return records, flush, self._closing

    def _warn(self, text: str) -> None:
        try:
            self._say(text)
        except Exception:  # a mailbox that is gone must not end the thread's clean-up, nor the round
            logging.getLogger(__name__).warning(text)


class Trackers:
    """All trackers of one round; none on ranks that do not report."""

    def __init__(self, lines: Sequence[Line] = (), warnings: list[str] | None = None) -> None:
        self._lines = list(lines)
        self.warnings = [] if warnings is None else warnings
        """What was said of trackers that are not, or no longer, used; complete after `close`."""
        self._held: list[dict[str, float]] = []
        self._step = 0

    @property
    def names(self) -> list[str]:
        """Of those that were started."""
        return [line.name for line in self._lines]

    def log(self, figures: Mapping[str, Any]) -> None:
        """Figures of a micro-step. Those of one optimizer step are sent together, as their mean, when the next begins."""
        if not self._lines:
            return
        if int(figures["step"]) != self._step:
            self._send_held()
        self._step = int(figures["step"])
        self._held.append(grouped(figures))

    def event(self, figures: Mapping[str, Any]) -> None:
        """Figures of an event, e.g. {"event": "validation", "step": 120, "recall": 0.4}."""
        if self._lines:
            self._send_held()
            self._send(int(figures["step"]), grouped(figures))

    def flush(self) -> None:
        """Ask all to bring what they have to where it can be seen; does not wait."""
        self._send_held()
        for line in self._lines:
            line.flush()

    def close(self, *, failed: bool = False, timeout_s: float = CLOSE_S) -> None:
        """End all; takes no longer than `timeout_s` in total, whatever they do. `failed`: the round did not finish."""
        self._send_held()
        until = time.monotonic() + timeout_s
        for line in self._lines:
            line.end(failed=failed)
        for line in self._lines:
            line.join(until - time.monotonic())
        self._lines = []

    def _send_held(self) -> None:
        if self._held:
            names = dict.fromkeys(name for values in self._held for name in values)
            seen = {name: [values[name] for values in self._held if name in values] for name in names}
            self._send(self._step, {name: sum(values) / len(values) for name, values in seen.items()})
            self._held = []

    def _send(self, step: int, values: Mapping[str, float]) -> None:
        record = Record(step, time.time(), values)
        for line in self._lines:
            line.put(record)


def make_trackers(
    names: Sequence[str],
    *,
    run: str,
    number: int,
    label: str,
    store: Store,
    folder: str,
    config: Mapping[str, Any],
    say: Say | None = None,
) -> Trackers:
    """Start the trackers that are set; only rank 0 calls it. One that cannot be used is reported, and is no error.

    Args:
        names: of "tensorboard", "mlflow", "wandb".
        run: name of the run; trackers group its rounds by it.
        number: of the round. label: of its model, e.g. round-02-random.
        store, folder: where the round's files go; TensorBoard's go below `tensorboard/<label>/` of the store.
        config: settings that trackers show; must hold no secrets.
        say: gets one line of warning per tracker that is not (or no longer) used; called from the trackers' threads too.
    """
    tell, warnings = say or logging.getLogger(__name__).warning, list[str]()

    def say_and_keep(text: str) -> None:
        warnings.append(text)
        tell(text)

    lines = []
    for name in dict.fromkeys(names):
        reason = _unusable(name)
        if reason:
            say_and_keep(f"tracker {name} is off: {reason}")
            continue
        about = About(run, number, label, "", Store(store.root, store.settings), folder, config)  # a connection of its own

        def start(name: str = name, about: About = about) -> Writer:
            return WRITERS[name](identified(about))

        lines.append(Line(name, start, say_and_keep))
    return Trackers(lines, warnings)


def grouped(figures: Mapping[str, Any]) -> dict[str, float]:
    """Figures that are numbers under their trackers' names, e.g. "train/loss", "geometry/effective_negatives",
    "speed/queries_per_second"; those of an event under the event's, e.g. "validation/recall"."""
    event = figures.get("event")
    return {
        f"{event or _group(name)}/{name}": float(value)
        for name, value in figures.items()
        if isinstance(value, int | float) and name not in {"step", "round"} and not (event and name == "epoch")
    }


def _group(name: str) -> str:
    if name in TRAIN or name.startswith("loss"):
        return "train"
    if name in SPEED or name.endswith("_per_second") or name.startswith(("seconds", "memory")):
        return "speed"
    return "geometry"


def _unusable(name: str) -> str:
    """Why a tracker cannot be used, in a sentence; empty: it can."""
    try:
        module = importlib.import_module(MODULES[name])
    except ImportError:
        return f'its package is not installed; pip install "hardmine[{name}]" where training runs'
    except Exception as error:  # a package of the user's that does not load is no reason not to train
        return f"its package cannot be imported ({type(error).__name__}: {without_secrets(str(error))[:300]})"
    if name == "mlflow" and not (os.environ.get("MLFLOW_TRACKING_URI") or module.is_tracking_uri_set()):
        return "MLFLOW_TRACKING_URI is not set where training runs; set it to the address of the tracking server"
    return ""


def without_secrets(text: str) -> str:
    """`text` as one paragraph without what is a secret in this environment, or a name and password inside an address."""
    for name, value in os.environ.items():
        if len(value) >= 6 and SECRETS.search(name):
            text = text.replace(value, "***")
    return one_paragraph(re.sub(r"://[^/@\s]+@", "://***@", text))
