"""What several packages' tests share: an S3 endpoint on loopback, and one local Ray for the whole session."""

from __future__ import annotations

import gc
import logging
import os
import string
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from cluster.errors import ClusterError
from cluster.session.resources import ClusterSettings, ClusterSize

# two processes of tests share the processors: see cluster.session.session.QUIET; before anything imports torch
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# a full collection walks through every object of torch, botocore and the others for 0.2 s, and without this there are hundreds
USUAL_COLLECTIONS = gc.get_threshold()
gc.set_threshold(100_000, 50, 50)
settings.register_profile("tests", deadline=None)  # a busy machine is no failure
settings.load_profile("tests")


DRIVERS = ("test_end_to_end", "test_left_behind", "test_resume", "run/test_submit_cluster")
"""Tests of jobs that start drivers in processes of their own."""


def pytest_collection_finish() -> None:
    """What is imported by now stays: a collection that a test or the code asks for leaves it out."""
    gc.freeze()


def _ray_runs() -> bool:
    runs: Callable[[], bool] = getattr(sys.modules.get("ray"), "is_initialized", lambda: False)
    return runs()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A test that calls for Ray starts one without asking, in a minute, and leaves it to the tests behind it."""
    before = _ray_runs()
    yield
    if item.get_closest_marker("cluster") is None:
        assert _ray_runs() == before, "this test starts Ray: mark it `cluster`, or end it before"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With --dist loadscope: what runs in the process of the tests shares one and its warm Ray; beside it, in another, run
    training's ranks and the drivers that are processes of their own."""
    if config.getvalue("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class TwoGroups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            ranks = nodeid.startswith("tests/training/") and not nodeid.startswith("tests/training/distributed/")
            drivers = nodeid.startswith(tuple(f"tests/jobs/{name}.py" for name in DRIVERS))
            return "ranks" if ranks or drivers else "ray"

    return TwoGroups(config, log)


KEYS = {"AWS_ACCESS_KEY_ID": "a-key-for-tests", "AWS_SECRET_ACCESS_KEY": "a-secret-for-tests"}


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[str]:
    """An S3 server in this process; its URL."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _create_one_at_a_time(server._server)
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def _create_one_at_a_time(server: Any) -> None:
    """As S3 does: moto looks whether there is an object and writes it later, so of two at once both would win."""
    application, lock = server.app, threading.Lock()

    def serve(environ: dict[str, Any], respond: Any) -> Any:
        with lock if {"HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH"} & environ.keys() else nullcontext():
            return application(environ, respond)

    server.app = serve


@pytest.fixture
def s3_endpoint(_s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a real S3 endpoint, with dummy keys in the environment and nothing else of AWS."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere/credentials")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere/config")
    return _s3_server


@pytest.fixture(scope="session")
def _s3_client(_s3_server: str) -> Any:
    import botocore.session

    keys = {name.lower(): value for name, value in KEYS.items()}
    return botocore.session.get_session().create_client("s3", endpoint_url=_s3_server, region_name="us-east-1", **keys)


@pytest.fixture
def s3_bucket(_s3_client: Any, s3_endpoint: str) -> str:
    """Address of a bucket that no other test uses, e.g. "s3://bucket-1f2e"."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    _s3_client.create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture(scope="session")
def ray_local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterSize]:
    """One local Ray with 2 CPUs, for every test marked `cluster`; its workers have the dummy S3 keys.

    A driver in a process of its own that needs no Ray of its own gets `ray_address`: that costs it a second, not ten.
    """
    gc.set_threshold(*USUAL_COLLECTIONS)  # as in a driver: actors that nothing but a cycle of objects holds keep their CPUs
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        patch.setenv("HARDMINE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield _started_ray(stack)


def _started_ray(stack: ExitStack) -> ClusterSize:
    """Ray gives a new node 30 seconds, whatever else the machine does, and a hundred tests wait for this one."""
    from cluster.session.session import ray_session

    for _ in range(2):
        with suppress(ClusterError):
            return stack.enter_context(ray_session(ClusterSettings(cpus=2)))
    return stack.enter_context(ray_session(ClusterSettings(cpus=2)))


@pytest.fixture
def ray_address(ray_local: ClusterSize) -> dict[str, str]:
    """The variable that lets a driver in another process join the session's Ray as a job of its own."""
    import ray

    return {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}


@pytest.fixture(scope="session")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny cross-encoder with random weights that reads letters and digits, 64 tokens at most."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder = tmp_path_factory.mktemp("cross-encoder")
    letters = [*string.ascii_lowercase, *string.digits]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = BertForSequenceClassification(
            BertConfig(
                vocab_size=len(words),
                hidden_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=64,
                max_position_embeddings=64,
                num_labels=1,
                initializer_range=0.5,
            )
        )  # small weights score all pairs alike
    model.save_pretrained(folder)
    return folder
