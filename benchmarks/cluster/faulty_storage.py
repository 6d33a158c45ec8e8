"""An S3 endpoint on loopback that fails on demand: errors, cut and stalled answers, answers that are lost, being away, and
refusing keys."""

from __future__ import annotations

import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from cluster.lease import PATH as LEASE

KINDS = ("error", "reset", "cut", "stalled", "lost")
STALL_S = 3.0


class FaultyStorage:
    """moto, with faults in front of it."""

    def __init__(self, seed: int = 0, address: str = "127.0.0.1") -> None:
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        self._server = ThreadedMotoServer(ip_address=address, port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.endpoint = f"http://{host}:{port}"
        self.share = 0.0
        """Of the requests that fail, each in one of KINDS."""
        self.away = False
        """Every request fails."""
        self.denied = False
        """Every request is refused, as S3 does when keys have expired."""
        self.failed: list[str] = []
        """HTTP methods of the requests that failed."""
        self.writes = 0
        """Objects written, but for the beats of leases."""
        self._rng, self._lock = random.Random(seed), threading.Lock()
        inner = self._server._server
        assert inner is not None
        self._application, inner.app = inner.app, self._serve

    def close(self) -> None:
        """Stop."""
        self._server.stop()

    def _serve(self, environ: dict[str, Any], respond: Callable[..., Any]) -> Iterable[bytes]:
        if self.denied:
            return self._refuse(environ, respond)
        kind = self._kind(environ["REQUEST_METHOD"])
        if kind == "error":
            respond("503 Slow Down", [("Content-Length", "0")])
            return [b""]
        if kind == "reset":
            return self._reset(environ)
        if kind == "stalled":
            time.sleep(STALL_S)
        # as S3 does: of two conditional writes at once only one sees what it expects
        conditional = {"HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH"} & environ.keys()
        if conditional:
            with self._lock:
                body = b"".join(self._application(environ, respond))
        else:
            body = b"".join(self._application(environ, respond))
        if environ["REQUEST_METHOD"] == "PUT" and not environ["PATH_INFO"].endswith(LEASE):
            self.writes += 1
        if kind == "lost":
            return self._reset(environ)
        return [body[: len(body) // 2]] if kind == "cut" and environ["REQUEST_METHOD"] == "GET" else [body]

    def _kind(self, method: str) -> str | None:
        with self._lock:
            if self.away:
                self.failed.append(method)
                return "error"
            if self._rng.random() >= self.share:
                return None
            self.failed.append(method)
            return self._rng.choice(KINDS)

    @staticmethod
    def _refuse(environ: dict[str, Any], respond: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "HEAD":  # AWS gives no reason here
            respond("400 Bad Request", [("Content-Length", "0")])
            return []
        body = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
        respond("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]

    @staticmethod
    def _reset(environ: dict[str, Any]) -> Iterable[bytes]:
        connection: socket.socket = environ["werkzeug.socket"]
        connection.shutdown(socket.SHUT_RDWR)
        raise ConnectionResetError("as asked")


@contextmanager
def faulty_storage(seed: int = 0, address: str = "127.0.0.1") -> Iterator[FaultyStorage]:
    """A storage at an address of this machine that ends with the context."""
    storage = FaultyStorage(seed, address)
    try:
        yield storage
    finally:
        storage.close()
