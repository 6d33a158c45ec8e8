"""Kills drivers, workers and nodes, cuts nodes off, disturbs the storage, while small runs go on: the bytes stay the same.

    python -m benchmarks.cluster.chaos [--seed 1] [--faults 100] [--minutes 30] [--record chaos.jsonl] [--json]

Two nodes of one CPU each and a head that does no work, on this machine, as root in network namespaces, whose cables are cut for
half a minute; output on an S3 endpoint. One run is left alone. Then runs of the same data are disturbed, until as many processes
and nodes were killed or the time is over: each must end with the bytes of the first, by resuming as often as it takes. A fault is
made after some more objects were written, so that all stages have their share however long they take.

With --record each outcome is appended to a file, and the next command goes on where this one stopped: with what the run under way
has stored, whose driver and cluster are gone by then, and without another undisturbed run. A row for every run of the record.
Exit code 1: some are not the same. A seed makes the same choices; when they come depends on the machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.cluster.faulty_storage import faulty_storage
from benchmarks.cluster.hosts import Host, can_make_hosts
from benchmarks.cluster.many_nodes import many_nodes
from benchmarks.cluster.small_runs import BUCKET, CONFIG, KEYS, ROOT, Runs
from benchmarks.shared.command import compared, emit, make_parser
from cluster.errors import EXIT_STOPPED
from cluster.storage.store import Store

FAULTS = {"worker": 6, "node": 2, "driver": 3, "cut": 1, "storage": 1, "away": 1, "denied": 1}
"""Kind -> how often, relative to the others."""
KILLS = ("worker", "node", "driver")
FAULTS_PER_RUN, AT_ONCE = 12, (0.6, 0.25, 0.15)
"""At most so many; one, two or three at the same moment."""
WRITES, AT_MOST_S, THEN_S = (2, 16), 20.0, 1.5
"""A fault is made after so many more objects, or so many seconds without them, and up to so many seconds more."""
STORAGE_S, STORAGE_SHARE, AWAY_S, DENIED_S, CUT_S = 6.0, 0.1, 12.0, 4.0, 30.0
NODE_BACK_S = (1.0, 20.0)
RUN_S, WORTH_S = 1200.0, 40.0
"""A run that takes longer counts as failed; with less time than this no other is begun."""
PACKAGES = ("cluster", "mining", "training", "eval", "jobs")


class Disturbed:
    """One run to its end, with faults on the way."""

    def __init__(self, runs: Runs, name: str, left: dict[str, Any]) -> None:
        """Args: left: the outcome so far of a run that an earlier command began; {}: none did."""
        self.runs, self.name = runs, name
        self.faults: list[str] = left.get("faults", [])
        self.starts, self.stops, self.seconds = left.get("starts", 0), left.get("stops", 0), left.get("seconds", 0.0)
        self.rng = random.Random(f"{name} {self.starts}")
        self.nodes = runs.nodes.count
        self._node_back = self._storage_back = 0.0
        self._cuts: list[tuple[Host, float]] = []
        """(a host that is cut off, when its cable is put in again)."""

    def run(self, until: float) -> dict[str, Any]:
        """Returns its outcome, with the code None where it has not ended at `until`; its driver is killed then."""
        started = time.monotonic()
        driver, code = self._start(), None
        moment = self._next_moment()
        try:
            while time.monotonic() < min(until, started + RUN_S - self.seconds):
                code = driver.poll()
                if code is not None:
                    self.stops += code > 0
                    if code not in (3, -signal.SIGKILL):
                        break
                    driver = self._start()
                self._mend()
                if len(self.faults) < FAULTS_PER_RUN and self._has_come(moment):
                    time.sleep(self.rng.uniform(0, THEN_S))
                    for _ in range(self.rng.choices((1, 2, 3), AT_ONCE)[0]):
                        self._make(driver)
                    moment = self._next_moment()
                time.sleep(0.02)
        finally:
            self._end(driver)
        if code is None:
            self.faults.append("driver and all nodes")
        return {
            "run": self.name,
            "faults": self.faults,
            "kills": dict(Counter(fault.split()[0] for fault in self.faults if fault.startswith(KILLS))),
            "starts": self.starts,
            "stops": self.stops,
            "code": code,
            "seconds": round(self.seconds + time.monotonic() - started, 1),
        }

    def _start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        return self.runs.start(self.name)

    def _next_moment(self) -> tuple[int, float]:
        return self.runs.storage.writes + self.rng.randint(*WRITES), time.monotonic() + AT_MOST_S

    def _has_come(self, moment: tuple[int, float]) -> bool:
        writes, latest = moment
        return self.runs.storage.writes >= writes or time.monotonic() > latest

    def _make(self, driver: subprocess.Popen[bytes]) -> None:
        nodes, now = self.runs.nodes, time.monotonic()
        fault = self.rng.choices([*FAULTS], [*FAULTS.values()])[0]
        if fault == "driver":
            if driver.poll() is not None:
                return
            driver.kill()
        elif fault == "worker":
            victim = nodes.kill_worker(self.rng)
            if not victim:
                return
            fault = f"worker {victim}"
        elif fault in ("node", "cut"):
            if nodes.count < self.nodes or (fault == "cut" and nodes.network is None):
                return
            number = self.rng.randrange(nodes.count)
            if fault == "cut":
                self._cuts.append((nodes.cut_node(number), now + CUT_S))
            else:
                nodes.kill_node(number)
            self._node_back = now + self.rng.uniform(*NODE_BACK_S)
        elif fault == "away":
            self.runs.storage.away, self._storage_back = True, now + AWAY_S
        elif fault == "denied":
            self.runs.storage.denied, self._storage_back = True, now + DENIED_S
        else:
            self.runs.storage.share, self._storage_back = STORAGE_SHARE, now + STORAGE_S
        self.faults.append(fault)

    def _mend(self) -> None:
        now = time.monotonic()
        if self.runs.nodes.count < self.nodes and now > self._node_back:
            self.runs.nodes.add()
        for host, until in [cut for cut in self._cuts if now > cut[1]]:
            host.join()
            self._cuts.remove((host, until))
        if now > self._storage_back:
            self.runs.storage.away = self.runs.storage.denied = False
            self.runs.storage.share = 0.0

    def _end(self, driver: subprocess.Popen[bytes]) -> None:
        driver.kill()
        driver.wait()
        self._node_back = self._storage_back = 0.0
        self._mend()


class Record:
    """The outcomes so far, in a file if one was named."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path and path.exists() else []
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def add(self, row: dict[str, Any]) -> None:
        """Another outcome."""
        self.rows.append(row)
        sys.stderr.write(json.dumps(row | {"artifacts": len(row.get("artifacts", ()))}) + "\n")
        if self.path:
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")

    def keep(self, runs: Runs, row: dict[str, Any]) -> None:
        """Set aside what a run has stored that goes on with the next command."""
        if self.path:
            folder = self._left(row["run"])
            copy_all(Store(f"s3://{BUCKET}/{row['run']}", runs.settings), Store(str(folder / "objects")))
            (folder / "row.json").write_text(json.dumps(row))

    def take(self, runs: Runs, name: str) -> dict[str, Any]:
        """Put it back; returns the run's outcome so far, {}: nothing was set aside."""
        folder = self._left(name)
        if not self.path or not folder.exists():
            return {}
        copy_all(Store(str(folder / "objects")), Store(f"s3://{BUCKET}/{name}", runs.settings))
        row: dict[str, Any] = json.loads((folder / "row.json").read_text())
        shutil.rmtree(folder)
        return row

    def _left(self, name: str) -> Path:
        return (self.path or Path()).with_name(f"{name}.left")

    def calm(self, code: str) -> dict[str, Any] | None:
        """The newest undisturbed run, if it was one of this code."""
        calm = [row for row in self.rows if "artifacts" in row]
        return calm[-1] if calm and calm[-1]["digest"] == code else None

    @property
    def disturbed(self) -> list[dict[str, Any]]:
        """The runs with faults."""
        return [row for row in self.rows if "artifacts" not in row]

    @property
    def kills(self) -> int:
        """Processes and nodes that were killed."""
        return sum(int(count) for row in self.disturbed for count in row["kills"].values())

    def next_number(self, seed: int) -> int:
        """Of a seed's next run."""
        return 1 + sum(row["seed"] == seed for row in self.disturbed)


def main() -> int:
    """The command."""
    import ray

    given = parse()
    os.environ.update(KEYS)
    record = Record(given.record)
    until = time.monotonic() + 60 * given.minutes
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_STOPPED))  # what was started ends with it
    temporary = tempfile.TemporaryDirectory(prefix="hardmine-chaos-", ignore_cleanup_errors=True)
    hosts = can_make_hosts()
    storage_at = faulty_storage(given.seed, ray.util.get_node_ip_address() if hosts else "127.0.0.1")
    with temporary as folder, storage_at as storage, many_nodes(2, hosts=hosts) as nodes:
        runs = Runs(Path(folder), nodes, storage)
        calm = record.calm(code_digest()) or undisturbed(runs, record)
        while record.kills < given.faults and time.monotonic() < until - WORTH_S:
            name = f"seed-{given.seed}-{record.next_number(given.seed)}"
            row = Disturbed(runs, name, record.take(runs, name)).run(until)
            if row["code"] is None and row["seconds"] < RUN_S:  # the time is over
                record.keep(runs, row)
                break
            got, want = runs.artifacts(name), calm["artifacts"]
            different = sorted(path for path in {**want, **got} if want.get(path) != got.get(path))
            row |= {"seed": given.seed, "same": row["code"] == 0 and not different, "different": different[:5]}
            if not row["same"]:
                row["said"] = runs.last_words(name)
                if given.record:
                    given.record.with_name(f"{name}.log").write_text(runs.log(name))
            record.add(row)
    emit([shown(row, calm["seconds"]) for row in record.disturbed], as_json=given.json)
    return int(not all(row["same"] for row in record.disturbed))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=20, help="processes and nodes to kill, in the whole record")
    parser.add_argument("--minutes", type=float, default=30.0, help="for all of it; a run counts if it ends in this time")
    parser.add_argument("--record", type=Path, help="file that outcomes are appended to; a new command goes on from it")
    return parser.parse_args()


def copy_all(source: Store, target: Store) -> None:
    """Every object of one store into another."""
    for path in source.list():
        target.write_bytes(path, source.read_bytes(path))


def undisturbed(runs: Runs, record: Record) -> dict[str, Any]:
    """What a run leaves that nothing happens to."""
    started = time.monotonic()
    if runs.start("calm").wait(timeout=RUN_S):
        raise SystemExit(f"the undisturbed run failed: {runs.last_words('calm')}")
    seconds = round(time.monotonic() - started, 1)
    record.add({"digest": code_digest(), "seconds": seconds, "artifacts": runs.artifacts("calm")})
    return record.rows[-1]


def code_digest() -> str:
    """Of everything that a run executes."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return hashlib.sha256(b"".join([CONFIG.encode(), *(path.read_bytes() for path in paths)])).hexdigest()


def shown(row: dict[str, Any], calm_s: float) -> dict[str, Any]:
    """A row of the table."""
    kills = ", ".join(f"{count} {kind}" for kind, count in row["kills"].items())
    return compared(f"{row['run']}: killed {kills or 'nothing'}", row["seconds"], "undisturbed", calm_s) | row


if __name__ == "__main__":
    sys.exit(main())
