"""Runs that are sent to a cluster with `hardmine submit` and lose or gain nodes on the way: what they leave, and their time.

    python -m benchmarks.cluster.submitted [--case …] [--json]

Two or four nodes of one CPU, each in a network namespace of its own (needs root), data and output on an S3 endpoint that all of
them reach. Each run must leave the bytes of the first one, which nothing happens to; one that trains on another number of workers
has other rounding, so its stages before training. Exit code 1: some do not. They take minutes each.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.cluster.faulty_storage import faulty_storage
from benchmarks.cluster.many_nodes import ManyNodes, many_nodes
from benchmarks.cluster.small_runs import KEYS, Runs
from benchmarks.shared.command import chosen_cases, compared, emit, make_parser
from cluster.errors import HardmineError

RUN_S = 400.0
Step = tuple[str, Callable[[ManyNodes], object]]
"""(an address of the run holds this as soon as it is time, what happens then)."""


def kill_where(name: str) -> Callable[[ManyNodes], None]:
    """Kill the node where a worker with this name runs; as soon as there is one."""

    def kill(nodes: ManyNodes) -> None:
        deadline = time.monotonic() + 60
        while (node := nodes.node_of(name)) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        nodes.kill_node(nodes.nodes.index(node) if node else -1)

    return kill


CASES: dict[str, tuple[int, list[Step]]] = {
    "killed in search": (2, [("rounds/01/hits-train/", kill_where("ShardActor"))]),
    "killed in train": (2, [("rounds/01/train/", kill_where("RayTrainWorker"))]),
    "joins late": (4, [("commits/embed-", ManyNodes.add)]),
    "other workers": (4, [("rounds/01/train/", lambda nodes: None)]),
}
"""Name -> (nodes when all are there, what happens)."""


def main() -> int:
    """The command."""
    given = make_parser(__doc__, cases=CASES).parse_args()
    os.environ.update(KEYS)
    # a job's entry point is "python"
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    rows: list[dict[str, Any]] = []
    want, calm_s = submitted("calm", 2, [])
    for case in chosen_cases(given):
        count, steps = CASES[case]
        got, seconds = (resumed if case == "other workers" else submitted)(case.replace(" ", "-"), count, steps)
        if case == "other workers":
            first = {name for name in want if not name.startswith(("round-01-", "embed-", "finish")) or "search" in name}
            got, wanted = {name: got.get(name, "") for name in first}, {name: want[name] for name in first}
        else:
            wanted = want
        different = sorted(name for name in {**wanted, **got} if wanted.get(name) != got.get(name))
        rows.append(compared(f"{count} nodes, {case}", seconds, "2 nodes, undisturbed", calm_s))
        rows[-1] |= {"compared": len(wanted), "same": not different, "different": different[:5]}
    emit(rows, as_json=given.json)
    return int(not all(row["same"] for row in rows))


@contextmanager
def cluster(count: int) -> Iterator[Runs]:
    """So many hosts, a head that takes jobs, a storage that all reach."""
    import ray

    with (
        tempfile.TemporaryDirectory(prefix="hardmine-submitted-", ignore_cleanup_errors=True) as folder,
        faulty_storage(address=ray.util.get_node_ip_address()) as storage,
        many_nodes(count, hosts=True, dashboard=True) as nodes,
    ):
        yield Runs(Path(folder), nodes, storage)


def submitted(name: str, count: int, steps: list[Step]) -> tuple[dict[str, str], float]:
    """(what a submitted run left, its seconds). Where a node joins, it is the last of `count`."""
    with cluster(count - sum(act is ManyNodes.add for _, act in steps)) as runs:
        seconds = follow(runs, name, submit(runs, name), steps)
        return runs.artifacts(name), seconds


def resumed(name: str, count: int, steps: list[Step]) -> tuple[dict[str, str], float]:
    """The same of one that trains on two workers, is stopped in training, and is submitted again with three."""
    with cluster(count) as runs:
        job = submit(runs, name, "cluster.train_workers=2")
        started = time.monotonic()
        await_address(runs, name, steps[0][0], job)
        sent = next(line for line in runs.log(name).splitlines() if line.startswith("submitted"))
        number = sent.split(" as ")[1].split(";")[0]
        runs.command(name, "submit", "--stop", number, "--address", runs.nodes.dashboard).wait(timeout=60)
        job.wait(timeout=60)
        follow(runs, name, submit(runs, name, "cluster.train_workers=3"), [])
        return runs.artifacts(name), time.monotonic() - started


def submit(runs: Runs, name: str, *overrides: str) -> subprocess.Popen[bytes]:
    """`hardmine submit`."""
    return runs.command(name, "submit", str(runs.config(name)), *overrides, "--address", runs.nodes.dashboard)


def follow(runs: Runs, name: str, job: subprocess.Popen[bytes], steps: list[Step]) -> float:
    """Do each step when its time has come, and return the run's seconds when it has ended well."""
    started = time.monotonic()
    for address, act in steps:
        await_address(runs, name, address, job)
        act(runs.nodes)
    code = job.wait(timeout=RUN_S)
    sys.stderr.write(f"{name}:\n{runs.log(name)}\n")
    if code:
        raise SystemExit(f"{name} ended with exit code {code}")
    return time.monotonic() - started


def await_address(runs: Runs, name: str, address: str, job: subprocess.Popen[bytes]) -> None:
    """Return when the run holds an object with this in its address."""
    store, deadline = runs.store(name), time.monotonic() + RUN_S
    while time.monotonic() < deadline and job.poll() is None:
        with suppress(HardmineError):
            if any(address in path for path in store.list()):
                return
        time.sleep(0.05)
    raise SystemExit(f"{name} ended without {address}:\n{runs.log(name)}")


if __name__ == "__main__":
    sys.exit(main())
