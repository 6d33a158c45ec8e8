"""`hardmine pairs` on Ray: a driver that is killed in the middle, and the same call again; logs and results on S3."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.storage.store import Store
from tests.jobs.pairs.conftest import lines
from tests.jobs.pairs.test_make import log

pytestmark = pytest.mark.cluster


def digests(store: Store) -> dict[str, str]:
    return {path: hashlib.sha256(store.read_bytes(path)).hexdigest() for path in store.list("tables")}


def start(logs: str, to: str, **environment: str) -> subprocess.Popen[bytes]:
    endpoint = f"storage.endpoint={os.environ['AWS_ENDPOINT_URL']}"  # workers of a Ray that runs have their own environment
    command = [sys.executable, "-m", "jobs", "pairs", logs, "--to", to, "--json", "--set", endpoint]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | environment, cwd=Path(__file__).parents[3]
    )


def test_a_killed_driver_resumes_with_the_same_bytes_on_s3(
    monkeypatch: pytest.MonkeyPatch, ray_address: dict[str, str], s3_bucket: str, s3_endpoint: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    logs = Store(f"{s3_bucket}/logs")
    for number in range(6):
        logs.write_bytes(f"log-{number}.jsonl", lines(log(300, prefix=f"{number}q")))
    whole, _ = _finish(start(logs.root, f"{s3_bucket}/whole", **ray_address))
    killed = start(logs.root, f"{s3_bucket}/killed", **ray_address)
    store = Store(f"{s3_bucket}/killed")
    until = time.monotonic() + 120
    while not any("/done-" in path for path in store.list("work")):
        assert killed.poll() is None or time.monotonic() < until
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    again, err = _finish(start(logs.root, f"{s3_bucket}/killed", **ray_address))
    assert "were committed before" in err
    assert digests(store) == digests(Store(f"{s3_bucket}/whole"))
    assert again == whole
    assert not store.list("work")


def _finish(process: subprocess.Popen[bytes]) -> tuple[dict[str, Any], str]:
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err.decode()
    return json.loads(out), err.decode()
