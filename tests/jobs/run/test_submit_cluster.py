"""`hardmine submit` against a real cluster of one node, started and ended by this test."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from cluster.session.metrics import COUNTERS
from jobs.demo.catalogue import generate_catalogue
from jobs.run.job_folder import ROOT

TOKEN = "t" * 32
CONFIG = """
name = "small"
output = "runs"
[data]
corpus = "corpus.parquet"
queries = "queries.parquet"
qrels = "qrels.parquet"
[encoder]
kind = "static"
dimension = 32
vocabulary = 2000
[rounds]
warmup_epochs = 1
mined = 0
"""


JOIN = """
import os, sys
from cluster.session.resources import ClusterSettings
from cluster.session.session import ray_session
with ray_session(ClusterSettings(address=sys.argv[1])) as size:
    mode = os.environ["RAY_AUTH_MODE"]
print(f"{size.cpus} CPUs, RAY_AUTH_MODE is {mode}, then {os.environ.get('RAY_AUTH_MODE')}")
"""


@contextmanager
def real_cluster() -> Iterator[tuple[str, dict[str, str]]]:
    """Ray with two CPUs; its dashboard's address, and the environment that may reach it.

    The token lies where a first `ray.init()` leaves it, so `ray start` asks for it and nothing says so.
    """
    home = Path(tempfile.mkdtemp(prefix="hm-"))  # short: the path of a socket below it may have 107 bytes
    (home / ".ray").mkdir()
    (home / ".ray/auth_token").write_text(TOKEN)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(home), "HARDMINE_CACHE": str(home / "cache")}
    with socket.socket() as one, socket.socket() as two, socket.socket() as three:
        for probe in (one, two, three):
            probe.bind(("127.0.0.1", 0))
        port, client_port, metrics_port = (probe.getsockname()[1] for probe in (one, two, three))
    environment |= {"RAY_metrics_report_interval_ms": "500", "METRICS": f"http://127.0.0.1:{metrics_port}/metrics"}
    command = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--head",
        "--block",
        "--port=0",
        "--num-cpus=2",
        "--include-dashboard=true",
        f"--dashboard-port={port}",
        f"--ray-client-server-port={client_port}",
        "--dashboard-agent-listen-port=0",
        f"--metrics-export-port={metrics_port}",
        "--object-store-memory=200000000",
        f"--temp-dir={home}",
        "--disable-usage-stats",
    ]
    with open(home / "start.log", "wb") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for_node(head, port, home / "start.log")
        yield f"http://127.0.0.1:{port}", environment
    finally:
        end(head)
        shutil.rmtree(home, ignore_errors=True)


def wait_for_node(head: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """The dashboard answers some seconds before the node is there, and before `ray start` has written the address."""
    nodes = urllib.request.Request(f"http://127.0.0.1:{port}/api/v0/nodes", headers={"Authorization": f"Bearer {TOKEN}"})
    for _ in range(600):
        assert head.poll() is None, log.read_text()
        with suppress(OSError), urllib.request.urlopen(nodes, timeout=5) as answer:
            if b"ALIVE" in answer.read() and (log.parent / "ray_current_cluster").exists():
                return
        time.sleep(1)
    raise AssertionError(log.read_text())


def end(head: subprocess.Popen[bytes]) -> None:
    """Kill what `head` started and nothing else: `ray stop` would end every Ray of this user."""
    below = psutil.Process(head.pid).children(recursive=True) if head.poll() is None else []
    with suppress(ProcessLookupError):
        os.killpg(head.pid, signal.SIGKILL)
    for process in below:  # workers and jobs have process groups of their own
        with suppress(psutil.NoSuchProcess):
            process.kill()
    head.wait()
    psutil.wait_procs(below, timeout=20)


@pytest.mark.cluster
def test_submit_brings_back_the_exit_code_and_goes_on(tmp_path: Path) -> None:
    catalogue = generate_catalogue(300, 240)
    for name in ("corpus", "queries", "qrels"):
        pq.write_table(getattr(catalogue, name), tmp_path / f"{name}.parquet")
    (tmp_path / "run.toml").write_text(CONFIG)
    with real_cluster() as (address, environment):

        def send(*overrides: str, **variables: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "jobs", "submit", f"{tmp_path}/run.toml", *overrides, "--address", address]
            done = subprocess.run(command, cwd=ROOT, env=environment | variables, capture_output=True, text=True, timeout=1800)
            sys.stdout.write(f"{done.stdout}\n{done.stderr}\n")  # pytest shows it where the test fails, and with -s
            return done

        def join(**variables: str) -> subprocess.CompletedProcess[str]:
            """What `hardmine run` does first with cluster.address = HOST:PORT."""
            gcs = Path(environment["HOME"], "ray_current_cluster").read_text().strip()
            joined = {"env": environment | {"PYTHONPATH": str(ROOT)} | variables, "capture_output": True, "text": True}
            return subprocess.run([sys.executable, "-c", JOIN, gcs], **joined, timeout=300)  # type: ignore[call-overload,no-any-return]

        assert join().stdout.strip() == "2 CPUs, RAY_AUTH_MODE is token, then None", join().stderr
        assert "refuses the token of RAY_AUTH_TOKEN;" in join(RAY_AUTH_TOKEN="x" * 32).stderr
        assert "asks for a token; set RAY_AUTH_TOKEN" in join(RAY_AUTH_TOKEN_PATH="/nowhere").stderr
        refused = send(RAY_AUTH_TOKEN="x" * 32)
        assert refused.returncode == 3
        assert "wants a token" in refused.stderr
        mistaken = send("data.corpus=nowhere.parquet")
        assert mistaken.returncode == 2
        assert f"there is no file {tmp_path}/nowhere.parquet" in mistaken.stdout
        assert send().returncode == 0
        assert (tmp_path / "runs/small/commits/finish.json").exists()
        metrics = urllib.request.urlopen(environment["METRICS"], timeout=10).read().decode()
        assert [name for name in COUNTERS if f"ray_{name}" not in metrics] == []
        again = send()
        assert again.returncode == 0
        assert "is finished; this is its result" in again.stdout
        assert "· ingest" not in again.stdout
