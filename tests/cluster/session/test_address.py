"""Whether a Ray cluster answers: told in seconds, in one paragraph, whatever listens there."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.errors import ClusterError, ConfigError
from cluster.session import address as module
from cluster.session.address import check_address
from cluster.session.resources import ClusterSettings, ClusterSize
from cluster.session.session import ray_session


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def say_nothing(connection: socket.socket) -> None:
    time.sleep(5)


def answer_as_a_web_page(connection: socket.socket) -> None:
    connection.recv(1000)
    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello")


@contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that is not Ray; its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:  # closed: the test is over
                    return
                with connection:
                    answer(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_an_address_where_nothing_listens_is_told_in_seconds(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address, started = f"{host}:{free_port()}", time.monotonic()
    with pytest.raises(ClusterError, match=f"no Ray answers at {address}.*cluster.address or RAY_ADDRESS"):
        check_address(address)
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # the session of all tests is not the one that is asked for
    with pytest.raises(ClusterError, match=f"no Ray answers at {address}"), ray_session(ClusterSettings(address=address)):
        raise AssertionError("the session began")
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("answer", [say_nothing, answer_as_a_web_page])
def test_something_else_that_listens_there_is_not_taken_for_ray(
    answer: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READY_S", 1.0)
    monkeypatch.delenv("RAY_USE_TLS", raising=False)
    with listening(answer) as address, pytest.raises(ClusterError, match=f"something listens at {address}.*6379"):
        check_address(address)


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "head:port", "head:0", "head:99999", "http://head:6379", ""])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match='expected "auto" or host:port'):
        check_address(address)


def test_auto_finds_out_that_the_recorded_cluster_is_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.0.0.1:{free_port()}"
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray/ray_current_cluster").write_text(address)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", set)  # as where no other Ray runs
    with pytest.raises(ClusterError, match="no Ray answers at .*" + address.rpartition(":")[2]):
        check_address("auto")


def test_a_local_ray_needs_no_address() -> None:
    check_address("local")


@pytest.mark.cluster
def test_a_ray_that_runs_answers(ray_local: ClusterSize) -> None:
    import ray

    check_address(ray.get_runtime_context().gcs_address)
