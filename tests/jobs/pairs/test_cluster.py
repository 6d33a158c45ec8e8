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
from typing import TYPE_CHECKING, Any

import pytest

from cluster.storage.store import Store
from tests.jobs.pairs.conftest import START, event, lines, query
from tests.jobs.pairs.test_make import log

if TYPE_CHECKING:
    from cluster.session.resources import ClusterSize
    from tests.jobs.conftest import Case

HOUR = 3_600_000

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
        assert killed.poll() is None, "it was over before it could be killed"
        assert time.monotonic() < until, "no task was committed"
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    again, err = _finish(start(logs.root, f"{s3_bucket}/killed", **ray_address))
    assert "committed before" in err
    assert digests(store) == digests(Store(f"{s3_bucket}/whole"))
    assert again == whole
    assert not store.list("work")


def _finish(process: subprocess.Popen[bytes]) -> tuple[dict[str, Any], str]:
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err.decode()
    return json.loads(out), err.decode()


def test_from_a_log_to_a_model_and_back_to_pairs(ray_case: Case, ray_local: ClusterSize) -> None:
    """docs/logs.md on a small log: pairs, init, run; and what the run wrote is a log for the next pairs."""
    case = ray_case
    case.patch.chdir(case.folder)
    words = ["red", "blue", "green", "grey", "black", "white"]
    rows, items = [], []
    for number in range(120):
        thing = f"{words[number % 6]} thing {number % 20}"
        rows.append(
            query(f"q{number}", thing, [f"i{number % 20}", "i1", "i2"], user=f"u{number}", time=START + number * 3 * HOUR)
        )
        rows.append(event(f"q{number}", f"i{number % 20}", "purchase", user=f"u{number}", time=START + number * 3 * HOUR + 5000))
    for number in range(20):
        items.append({"id": f"i{number}", "title": f"thing {number}", "text": f"a {words[number % 6]} thing, number {number}"})
    case.files = {
        "ubi.jsonl": lines(rows),
        "catalogue.jsonl": lines(items),
        "pairs.toml": b'[corpus]\npath = "catalogue.jsonl"\n',
    }
    for name, content in case.files.items():
        (case.folder / name).write_bytes(content)
    settings = ["encoder.kind=static", "encoder.dimension=8", "encoder.vocabulary=256", "training.batch_size=8", "rounds.mined=1"]
    for command in (
        ["pairs", "ubi.jsonl", "--config", "pairs.toml", "--to", "pairs"],
        ["init", "pairs/tables", *settings, "evaluation.events=true", "name=first", "output=runs"],
        ["run", "hardmine.toml"],
        ["pairs", "runs/first/events", "pairs", "--config", "pairs.toml", "--to", "again", "--json"],
    ):
        answer = case.hardmine(*command)
        assert answer.code == 0, (command, answer.err)
    summary = json.loads(answer.out)
    assert summary["shapes"]["retrieval_eval"] > 0
    assert summary["labels"]["purchase"] > 0, "the earlier output's labels keep their source"
    assert [log["earlier"] for log in summary["logs"]] == [False, True]
    assert (case.folder / "again" / "pairs.html").exists()
    (case.folder / "odd.jsonl").write_bytes(lines([{"level": "info", "msg": "started"}]))
    answer = case.hardmine("pairs", "odd.jsonl", "--to", "odd")
    assert answer.code == 2, "what a worker refuses is the user's mistake, too"
    assert answer.message.startswith("hardmine: ")
    assert "found the columns" in answer.message
    assert "Traceback" not in answer.err
