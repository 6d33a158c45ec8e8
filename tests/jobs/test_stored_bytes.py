"""A bit that flips in storage: found before it is used, made anew where it can be, told where it cannot."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cluster.commits import Ledger
from cluster.session.resources import ClusterSize
from cluster.storage.digests import seal_of
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from cluster.tables.tables import read_part, write_part

pytestmark = pytest.mark.cluster

Refused = Callable[[Any, int, Sequence[str]], None]
PRISTINE: dict[str, Path] = {}


@pytest.fixture
def finished(ray_case: Any, ray_local: ClusterSize, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run in a folder of its own, made once and copied for each test; its data stays where it is."""
    if "folder" not in PRISTINE:
        PRISTINE["folder"] = tmp_path_factory.mktemp("finished")
        ray_case.folder = PRISTINE["folder"]
        ray_case.set("rounds.warmup_epochs", 0)
        answer = ray_case.run("--json")
        assert answer.code == 0, answer.err
        shutil.copytree(ray_case.folder / "out", ray_case.folder / "kept")
    ray_case.folder = PRISTINE["folder"]
    ray_case.set("rounds.warmup_epochs", 0)
    shutil.rmtree(ray_case.folder / "out")
    shutil.copytree(ray_case.folder / "kept", ray_case.folder / "out")
    ray_case.write()
    return ray_case


def root_of(case: Any) -> Path:
    return Path(case.folder) / "out/run"


def flip(path: Path, at: float = 0.5) -> None:
    """Change one bit of a file, this far into it."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 16
    path.write_bytes(bytes(data))


def stored(root: Path) -> dict[str, bytes]:
    """Everything that stages left, but for commits, which hold times, and for what measures time."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.suffix in (".parquet", ".safetensors", ".json")
        and not {"commits", "report", "events"} & set(path.relative_to(root).parts)
        and path.name not in ("result.json", "telemetry.parquet", "run.json", "how.json", "mining.json", "identity.json")
    }


DAMAGED = {  # what is damaged: its table -> the stage that wrote it, a stage that reads it and is to run again
    "corpus": ("embed", "round-01-search"),
    "hits": ("round-01-search", "round-01-mine"),
    "negatives": ("round-01-mine", "round-01-train"),
}


@pytest.mark.parametrize("table", DAMAGED)
def test_a_part_with_a_flipped_bit_is_made_anew_by_the_same_run(finished: Any, table: str) -> None:
    root, (writer, reader) = root_of(finished), DAMAGED[table]
    want = stored(root)
    commits = {commit.name: commit for commit in Ledger(Store(str(root))).all()}
    written = [c for c in commits.values() if c.name.startswith(writer) and c.key in commits[reader].inputs.values()]
    part = root / written[0].parts(table)[0].path
    for name in ("finish", reader):
        (root / f"commits/{name}.json").unlink()
    for folder in {path.split(f"/{commits[reader].key}/")[0] for path in commits[reader].listed()}:
        shutil.rmtree(root / folder)
    flip(part)
    answer = finished.hardmine("run", str(finished.folder / "run.toml"), "--json")
    assert answer.code == 0, answer.err
    (line,) = [line for line in answer.err.splitlines() if line.startswith("! ") and "done now" in line]
    assert str(part) in line
    got = stored(root)
    assert got.keys() == want.keys()
    assert [path for path in want if got[path] != want[path]] == []


def test_a_finished_model_with_a_flipped_bit_is_neither_called_finished_nor_judged(finished: Any, refused: Refused) -> None:
    root = root_of(finished)
    want = stored(root)
    model = next(root.glob("model/*/**/*.safetensors"))
    flip(model)
    refused(finished.hardmine("gate", str(root), "--no-latency"), 2, [str(model), "SHA-256", "`hardmine run`"])
    answer = finished.hardmine("verify", str(root), "--json")
    assert answer.code == 1
    assert [one["path"] for one in json.loads(answer.out)["damaged"]] == [str(model)]
    answer = finished.hardmine("run", str(finished.folder / "run.toml"))
    assert answer.code == 0
    assert f"! {model} does not have the SHA-256" in answer.err
    assert stored(root) == want
    answer = finished.hardmine("verify", str(root))
    assert answer.code == 0
    assert answer.out.startswith("parts, model files, commits, identity.json and run.json are as they were written: ")


COMMANDS = [("status",), ("gate", "--no-latency"), ("diagnose",), ("report",)]
EDITS = {
    "commits/round-01-evaluate.json": lambda text: text.replace('"metrics"', '"metrisc"', 1),
    "commits/round-01-train.json": lambda text: json.dumps({**json.loads(text), "figures": {}}),
    "commits/ingest.json": lambda text: text[:-20],
}


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("command", COMMANDS, ids=[words[0] for words in COMMANDS])
def test_an_edited_commit_ends_in_one_paragraph(finished: Any, refused: Refused, name: str, command: tuple[str, ...]) -> None:
    path = root_of(finished) / name
    path.write_text(EDITS[name](path.read_text()))
    refused(finished.hardmine(*command, str(root_of(finished))), 2, [name, "edited or damaged", "`hardmine run`"])


CONTENTS = ["[]", "{}", '{"config": {}}', "null", ""]


@pytest.mark.parametrize("content", CONTENTS)
def test_an_edited_identity_ends_in_one_paragraph(finished: Any, refused: Refused, content: str) -> None:
    (root_of(finished) / "identity.json").write_text(content)
    refused(finished.hardmine("diagnose", str(root_of(finished))), 2, ["identity.json", "edited or damaged"])
    refused(finished.hardmine("run", str(finished.folder / "run.toml")), 2, ["identity.json", "edited or damaged"])


def test_an_edited_configuration_ends_in_one_paragraph_and_a_run_writes_it_anew(finished: Any, refused: Refused) -> None:
    path = root_of(finished) / "run.json"
    before = json.loads(path.read_text())
    for content in CONTENTS:
        path.write_text(content)
        refused(finished.hardmine("gate", str(root_of(finished)), "--no-latency"), 2, ["run.json", "edited or damaged"])
    answer = finished.hardmine("run", str(finished.folder / "run.toml"))
    assert answer.code == 0, answer.err
    assert f"! {path} is not what" in answer.err
    assert json.loads(path.read_text())["config"] == before["config"]


def test_a_copied_run_prints_its_own_paths(finished: Any) -> None:
    old, new = root_of(finished), finished.folder / "elsewhere"
    shutil.copytree(old, new)
    for command in COMMANDS:
        answer = finished.hardmine(*command, str(new), "--json")
        assert answer.code in (0, 1), answer.err
        assert str(old) not in answer.out, command
    value = json.loads(finished.hardmine("status", str(new), "--json").out)
    assert value["output"] == str(new)
    assert value["model"] is None or value["model"].startswith(str(new))
    shutil.rmtree(new)


def test_verify_names_everything_that_is_missing_or_damaged(finished: Any) -> None:
    root = root_of(finished)
    part = next(root.glob("embeddings/*/corpus/part-*.parquet"))
    other = next(root.glob("rounds/01/mine/*/negatives/part-*.parquet"))
    flip(part, 0.1)
    other.unlink()
    flip(root / "commits/baseline-evaluate.json")
    (root / "run.json").write_text("{}")
    answer = finished.hardmine("verify", str(root))
    assert answer.code == 1
    for path in (part, other, root / "commits/baseline-evaluate.json", root / "run.json"):
        assert str(path) in answer.out
    assert "4 damaged" in answer.out
    for path in (part, root / "commits/baseline-evaluate.json", root / "run.json", root / "commits/finish.json"):
        path.unlink()  # as the answer says
    assert finished.hardmine("run", str(finished.folder / "run.toml")).code == 0
    assert finished.hardmine("verify", str(root)).code == 0


@pytest.mark.parametrize("path", ["identity.json", "commits/round-01-train.json", "rounds/01/evaluation.json", "gate.json"])
def test_what_verify_checks_is_what_it_says(finished: Any, path: str) -> None:
    root = root_of(finished)
    finished.hardmine("gate", str(root), "--no-latency")
    (root / path).write_text((root / path).read_text().replace("0", "1", 1))
    answer, told = finished.hardmine("verify", str(root)), finished.hardmine("verify", "--help").out
    copies = told[told.index("Copies") :]
    assert (Path(path).name in copies) == (answer.code == 0), answer.out
    if answer.code:
        assert "delete them and commits/finish.json" in answer.out


def test_verify_of_what_is_no_run_is_refused(ray_case: Any, refused: Refused) -> None:
    refused(ray_case.hardmine("verify", str(ray_case.folder)), 2, ["is not a run"])


@pytest.fixture(params=[False, True], ids=["without checksums", "with checksums"])
def bad_network(s3_endpoint: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A proxy in front of the S3 server that flips one bit in every fourth body that is a Parquet file; its URL.

    The server sends checksums, which botocore compares; other object storage does not.
    """
    dropped = ["content-length", "transfer-encoding", "connection"]

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # so that a client that expects "100 Continue" gets it
        served = 0

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            onward = HTTPConnection(s3_endpoint.removeprefix("http://"))
            sent_on = {name: value for name, value in self.headers.items() if name.lower() not in ("connection", "expect")}
            onward.request(self.command, self.path, self.rfile.read(length) if length else None, sent_on)
            response = onward.getresponse()
            status, sent, body = response.status, response.headers, bytearray(response.read())
            onward.close()
            if self.command == "GET" and body[:4] == b"PAR1":
                Proxy.served += 1
                if Proxy.served % 4 == 0:
                    body[len(body) // 3] ^= 8
            self.send_response(status)
            for name, value in sent.items():
                if name.lower() not in dropped and (request.param or not name.lower().startswith("x-amz-checksum")):
                    self.send_header(name, value)
            self.send_header("Content-Length", sent.get("Content-Length", "0") if self.command == "HEAD" else str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(bytes(body))

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_part_that_a_network_damages_is_read_whole(bad_network: str, s3_bucket: str, request: pytest.FixtureRequest) -> None:
    store = Store(f"{s3_bucket}/x", StorageSettings(endpoint=bad_network))
    part = write_part(store, "t/part.parquet", pa.table({"n": range(100)}))
    assert list(store.list()) == [part.path]
    damaged = sum(seal_of(store.read_bytes(part.path)) is None for _ in range(9))
    assert damaged == (0 if "with checksums" in request.node.name else 2)
    assert all(read_part(store, part)["n"].to_pylist() == list(range(100)) for _ in range(9))


def test_a_run_over_a_network_that_flips_bits_ends_with_the_same_bytes(
    finished: Any, bad_network: str, s3_bucket: str, s3_endpoint: str
) -> None:
    want = stored(root_of(finished))
    finished.set("output", f"{s3_bucket}/out")
    finished.set("storage.endpoint", bad_network)
    answer = finished.run("--json")
    finished.settings["output"] = "out"
    del finished.settings["storage"]
    assert answer.code == 0, answer.err
    store = Store(f"{s3_bucket}/out/run", StorageSettings(endpoint=s3_endpoint))
    got = {path: store.read_bytes(path) for path in store.list() if path in want}
    assert [path for path in got if got[path] != want[path]] == []
    assert sum(path.endswith(".parquet") for path in got) > 10
