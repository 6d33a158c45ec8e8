"""What `hardmine submit` sends, what it refuses, and the exit code it brings back.

Against a stand-in for Ray's dashboard that speaks its HTTP; `test_submit_cluster.py` has a real one.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import socket
import sys
import threading
import time
import tomllib
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import ClusterError, ConfigError
from jobs.config.config import parse_config
from jobs.config.toml import to_toml
from jobs.run import job_folder, submit
from jobs.run.job_folder import stage_job
from jobs.run.submit import exit_code, is_loopback, list_jobs, refuse_local_paths, stop_job, submit_run

JOB = "raysubmit_1"
REMOTE = "http://head.invalid:8265"
CLUSTER = job_folder.ROOT / "cluster"


def values(where: str = "s3://bucket/data") -> dict[str, Any]:
    data = {name: f"{where}/{name}.parquet" for name in ("corpus", "queries", "qrels")}
    return {"name": "small", "output": "s3://bucket/runs", "data": data, "encoder": {"kind": "static"}}


def write_config(folder: Path, where: str = "s3://bucket/data", output: str = "s3://bucket/runs") -> Path:
    path = folder / "run.toml"
    path.write_text(to_toml(parse_config(values(where) | {"output": output}, source="test")))
    return path


class Dashboard(ThreadingHTTPServer):
    """Answers as Ray's dashboard does, from what a test put into it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.token_wanted = False
        self.node_ip = "127.0.0.1"
        self.package: list[str] = []
        self.config: dict[str, Any] = {}
        self.submitted: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.statuses: list[dict[str, Any] | None] = [{"status": "SUCCEEDED", "driver_exit_code": 0}]
        """Answers to "how is the job", one after the other, the last one for ever; None: the dashboard fails."""
        self.logs = ["all done\n"]

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        self.requests.append(f"{method} {path}")
        if self.token_wanted:
            return 401, "Unauthorized: Missing authentication token"
        if method == "PUT":
            with zipfile.ZipFile(io.BytesIO(body)) as package:
                self.package = [name for name in package.namelist() if not name.endswith("/")]
                self.config = tomllib.loads(package.read("job.toml").decode())
        if method == "POST" and body:
            self.submitted.append(json.loads(body))
        if path == f"/api/jobs/{JOB}":
            status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
            return (200, {"type": "SUBMISSION", "entrypoint": ""} | status) if status else (500, "worker died")
        if path == f"/api/jobs/{JOB}/logs":
            return 200, {"logs": self.logs.pop(0) if len(self.logs) > 1 else self.logs[0]}
        if (method, path) == ("GET", "/api/jobs/"):
            return 200, [
                {"type": "SUBMISSION", "submission_id": id_, "entrypoint": command, "status": "RUNNING", "start_time": start}
                | {"metadata": {"job_name": "small"}}
                for id_, command, start in (("old", submit.COMMAND, 1e12), (JOB, submit.COMMAND, 2e12), ("x", "sleep 9", 3e12))
            ]
        return 404 if method == "GET" and "packages" in path else 200, self.plain_answer(path)

    def plain_answer(self, path: str) -> dict[str, Any]:
        if path.startswith("/api/v0/nodes"):
            node = {
                "node_id": "1",
                "node_ip": self.node_ip,
                "is_head_node": True,
                "state": "ALIVE",
                "node_name": "n",
                "state_message": None,
                "resources_total": {},
                "labels": {},
            }
            found = {
                "total": 1,
                "num_after_truncation": 1,
                "num_filtered": 1,
                "result": [node],
                "partial_failure_warning": "",
                "warnings": None,
            }
            return {"result": True, "msg": "", "data": {"result": found}}
        if path == f"/api/jobs/{JOB}/stop":
            return {"stopped": True}
        if path == "/api/jobs/":
            return {"job_id": JOB, "submission_id": JOB}
        return {"version": "4", "ray_version": "2.60.0", "ray_commit": "", "session_name": ""}


class Handler(BaseHTTPRequestHandler):
    server: Dashboard

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        code, value = self.server.answer(self.command, self.path, body)
        content = (value if isinstance(value, str) else json.dumps(value)).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = _any  # noqa: N815  named by http.server

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def dashboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dashboard]:
    monkeypatch.setattr(submit, "POLL_S", 0.01)
    with Dashboard() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def test_folder_holds_the_packages_and_the_config_only(tmp_path: Path) -> None:
    root, folder = tmp_path / "project", tmp_path / "job"
    planted = [
        ".env",
        "data.parquet",
        "key.pem",
        "runs/small/run.json",
        ".venv/lib/x.py",
        ".git/config",
        "tests/t.py",
        "jobs/.env",
        "jobs/key.pem",
        "jobs/credentials.json",
        "mining/corpus.parquet",
        "jobs/.hidden/x.py",
        "eval/__pycache__/x.cpython-311.pyc",
        "cluster/kuberay/rayjob.yaml",
    ]
    wanted = [*(f"{package}/__init__.py" for package in job_folder.PACKAGES), "eval/page/report.html"]
    for name in planted + wanted:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    (root / "jobs/linked.py").symlink_to(root / "key.pem")
    folder.mkdir()
    stage_job(parse_config(values(), source="test"), folder, address=REMOTE, root=root)
    got = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert got == sorted([*wanted, "job.toml"])


@pytest.mark.parametrize(
    "secret",
    ["-----BEGIN RSA PRIVATE" + " KEY-----", "-----BEGIN PRIVATE" + " KEY-----", "AKIA" + "ABCDEFGHIJ234567", "hf_" + "aB3" * 12],
)
def test_code_that_holds_a_key_is_not_sent(secret: str, tmp_path: Path) -> None:
    root, folder = tmp_path / "project", tmp_path / "job"
    for package in job_folder.PACKAGES:
        (root / package).mkdir(parents=True)
    (root / "jobs/upload.py").write_text(f'KEY = """{secret}"""\n')
    folder.mkdir()
    with pytest.raises(ConfigError, match=r"jobs/upload.py holds what looks like a private key") as error:
        stage_job(parse_config(values(), source="test"), folder, address=REMOTE, root=root)
    assert secret not in str(error.value)


def test_our_own_code_holds_no_key(tmp_path: Path) -> None:
    stage_job(parse_config(values(), source="test"), tmp_path, address=REMOTE)


def test_too_much_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_folder, "MAX_BYTES", 10_000)
    with pytest.raises(ConfigError, match=r"the largest file is [\w/]+\.py"):
        stage_job(parse_config(values(), source="test"), tmp_path, address=REMOTE)


@given(text=st.text(), key=st.text(), number=st.floats(0.001, 1.0))
def test_toml_reads_back_as_the_same_config(text: str, key: str, number: float) -> None:
    wanted = values() | {
        "encoder": {"kind": "static", "query_prompt": text},
        "training": {"temperature": number},
        "mining": {"rules": [{"column": key, "keep": "disjoint"}, {"column": "g", "keep": "equal"}]},
    }
    wanted["data"] |= {"columns": {key: text}}
    try:
        config = parse_config(wanted, source="test")
    except ConfigError:  # some texts are no column names
        return
    assert parse_config(tomllib.loads(to_toml(config)), source="test") == config


@pytest.mark.parametrize(
    "mining",
    [
        {"relative_margin": "off"},
        {"relative_margin": "off", "absolute_margin": 0.1},
        {"target_discard_rate": 0.3},
        {"sources": [{"kind": "model"}, {"kind": "bm25", "share": 0.5}]},
        {"teacher": {"model": "organisation/reranker", "relative_margin": "off", "max_score": 0.1}},
        {"search": {"mode": "ivf", "lists": 16}, "choose": "softmax", "popularity": "sales"},
    ],
)
def test_toml_keeps_what_is_switched_off_in_mining(mining: dict[str, Any]) -> None:
    config = parse_config(values() | {"mining": mining}, source="test")
    assert parse_config(tomllib.loads(to_toml(config)), source="test") == config


def test_remote_cluster_gets_no_local_paths(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"another machine.*data\.corpus = {tmp_path}/corpus.parquet.*s3://"):
        submit_run(write_config(tmp_path, "."), [], address=REMOTE)
    with pytest.raises(ConfigError, match=r"cannot read output = /runs; "):
        submit_run(write_config(tmp_path), ["output=/runs"], address=REMOTE)
    model = values() | {"encoder": {"kind": "transformer", "model": "../mine"}}
    with pytest.raises(ConfigError, match=r"cannot read encoder\.model = \.\./mine; "):
        refuse_local_paths(parse_config(model, source="test"), "far away")
    teacher = values() | {"mining": {"teacher": {"model": "./reranker"}}}
    with pytest.raises(ConfigError, match=r"mining\.teacher\.model = \./reranker"):
        refuse_local_paths(parse_config(teacher, source="test"), "far away")


def test_hub_names_and_s3_are_no_local_paths() -> None:
    model = {"kind": "transformer", "model": "sentence-transformers/all-MiniLM-L6-v2"}
    refuse_local_paths(parse_config(values() | {"encoder": model}, source="test"), "far away")


@pytest.mark.parametrize("address", ["head:8265", "ray://head:10001", "http://", "ftp://head", "http://me:word@head:8265"])
def test_address_that_is_no_dashboard_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="--address") as caught:
        is_loopback(address)
    assert "word" not in str(caught.value).replace("password", "")


def test_loopback_is_told_from_other_machines() -> None:
    assert all(map(is_loopback, ["http://127.0.0.1:8265", "http://localhost:8265", "https://[::1]:8265"]))
    assert not any(map(is_loopback, [REMOTE, "http://10.0.0.1:8265"]))


@pytest.mark.parametrize("listens", [False, True])
def test_silent_cluster_is_an_error_soon(listens: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "ANSWER_S", 1.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if listens:
            silent.listen()
        started = time.monotonic()
        with pytest.raises(ClusterError, match=r"no good answer from a Ray dashboard at http://127.*check the address"):
            submit_run(write_config(tmp_path), [], address=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert time.monotonic() - started < 30


def test_cluster_that_wants_a_token_says_how_to_give_it(dashboard: Dashboard, tmp_path: Path) -> None:
    dashboard.token_wanted = True
    with pytest.raises(ClusterError, match=r"wants a token .*RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN"):
        submit_run(write_config(tmp_path), [], address=dashboard.address)


def test_what_is_sent_is_code_config_and_no_key(dashboard: Dashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-for-tests")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")  # --address is what counts
    config = write_config(tmp_path, ".", str(tmp_path / "runs"))
    assert submit_run(config, ["rounds.mined=1", "cluster.address=auto"], address=dashboard.address) == 0
    job = dashboard.submitted[0]
    assert job["entrypoint"] == f"{shlex.quote(sys.executable)} -m jobs run job.toml"
    assert "submission_id" not in job
    assert job["runtime_env"]["env_vars"] == submit.VARIABLES
    assert "a-secret-for-tests" not in json.dumps(job)
    assert {Path(name).parts[0] for name in dashboard.package} == {*job_folder.PACKAGES, "job.toml", "submitted.json"}
    assert dashboard.config["data"]["corpus"] == str(tmp_path / "corpus.parquet")
    assert dashboard.config["rounds"]["mined"] == 1
    assert "address" not in dashboard.config["cluster"]
    assert os.environ["RAY_ADDRESS"] == "10.0.0.1:6379"


def test_loopback_address_of_a_tunnel_is_a_remote_cluster(dashboard: Dashboard, tmp_path: Path) -> None:
    dashboard.node_ip = "203.0.113.7"
    with pytest.raises(ConfigError, match="tunnel or port-forward"):
        submit_run(write_config(tmp_path, "."), [], address=dashboard.address)
    assert submit_run(write_config(tmp_path), [], address=dashboard.address) == 0
    assert dashboard.submitted[0]["entrypoint"] == "python -m jobs run job.toml"


@pytest.mark.parametrize(
    ("status", "driver", "want"),
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 1, 1),
        ("FAILED", 2, 2),
        ("FAILED", 3, 3),
        ("FAILED", 137, 3),
        ("FAILED", -9, 3),
        ("FAILED", None, 3),
        ("STOPPED", None, 3),
        ("STOPPED", 0, 3),
    ],
)
def test_exit_code_is_the_runs_own(status: str, driver: int | None, want: int) -> None:
    assert exit_code(status, driver) == want


def test_log_is_shown_once_and_a_dashboard_that_stumbles_is_asked_again(
    dashboard: Dashboard, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dashboard.statuses = [{"status": "PENDING"}, {"status": "RUNNING"}, None, {"status": "FAILED", "driver_exit_code": 1}]
    dashboard.logs = ["", "one\n", "one\ntwo\n"]
    assert submit_run(write_config(tmp_path), [], address=dashboard.address) == 1
    out, err = capsys.readouterr()
    assert out == "one\ntwo\n"
    assert f"hardmine submit --stop {JOB} --address {dashboard.address}" in err


def test_job_that_never_started_says_why_and_where_keys_come_from(
    dashboard: Dashboard, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dashboard.statuses = [{"status": "FAILED", "message": "runtime_env\nsetup failed"}]
    assert submit_run(write_config(tmp_path), [], address=dashboard.address) == 3
    message = capsys.readouterr().err.splitlines()[-1]
    assert "(runtime_env setup failed)" in message
    assert "the nodes need their own" in message


def test_dashboard_that_stays_away_is_a_cluster_error(
    dashboard: Dashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "PATIENCE_S", 0.1)
    dashboard.statuses = [{"status": "RUNNING"}, None]
    with pytest.raises(ClusterError, match=f"lost contact with {JOB}, which may still run"):
        submit_run(write_config(tmp_path), [], address=dashboard.address)


def test_interrupt_leaves_the_job_alone(
    dashboard: Dashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    dashboard.statuses = [{"status": "RUNNING"}]
    monkeypatch.setattr(submit.time, "sleep", interrupt)
    assert submit_run(write_config(tmp_path), [], address=dashboard.address) == 130
    assert "which continues" in capsys.readouterr().err
    assert not any("stop" in request for request in dashboard.requests)


def test_launcher_file_is_one_of_rays_and_copies_no_files() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    launcher = yaml.safe_load((CLUSTER / "launcher/cluster.yaml").read_text())
    validate_config(prepare_config(launcher))
    assert launcher["file_mounts"] == {}
    assert launcher["provider"]["use_internal_ips"]
    assert "--env NVIDIA_VISIBLE_DEVICES=all" in launcher["docker"]["run_options"], "the image does not set it"
    assert "--env NVIDIA_DRIVER_CAPABILITIES=compute,utility" in launcher["docker"]["run_options"]
    assert launcher["available_node_types"]["head"]["resources"] == {"CPU": 0}, "the head does no work"


def test_a_job_is_submitted_without_waiting_listed_and_stopped(
    dashboard: Dashboard, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dashboard.statuses = [{"status": "RUNNING"}]
    assert submit_run(write_config(tmp_path), [], address=dashboard.address, wait=False) == 0
    assert f"GET /api/jobs/{JOB}" not in dashboard.requests, "it waited"
    assert [(job.id, job.name, job.started) for job in list_jobs(dashboard.address)] == [
        (JOB, "small", 2e9),
        ("old", "small", 1e9),
    ]
    assert stop_job(JOB, address=dashboard.address)
    assert f"POST /api/jobs/{JOB}/stop" in dashboard.requests


@pytest.mark.parametrize("words", [[], ["--list", "--stop", "x"], ["run.toml", "--list"]])
def test_submit_does_one_thing_at_a_time(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from jobs.cli.app import main

    monkeypatch.setattr(sys, "argv", ["hardmine", "submit", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "either CONFIG, or --list, or --stop JOB" in capsys.readouterr().err
