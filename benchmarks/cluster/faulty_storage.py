"""An S3 endpoint on loopback that fails on demand: errors, cut and stalled answers, answers that are lost, and being away."""

from __future__ import annotations

import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

KINDS = ("error", "reset", "cut", "stalled", "lost")
STALL_S = 3.0


class FaultyStorage:
    """moto, with faults in front of it."""

    def __init__(self, seed: int = 0) -> None:
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.endpoint = f"http://{host}:{port}"
        self.share = 0.0
        """Of the requests that fail, each in one of KINDS."""
        self.away = False
        """Every request fails."""
        self.failed: list[str] = []
        """HTTP methods of the requests that failed."""
        self._rng, self._lock = random.Random(seed), threading.Lock()
        inner = self._server._server
        assert inner is not None
        self._application, inner.app = inner.app, self._serve

    def close(self) -> None:
        """Stop."""
        self._server.stop()

    def _serve(self, environ: dict[str, Any], respond: Callable[..., Any]) -> Iterable[bytes]:
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
    def _reset(environ: dict[str, Any]) -> Iterable[bytes]:
        connection: socket.socket = environ["werkzeug.socket"]
        connection.shutdown(socket.SHUT_RDWR)
        raise ConnectionResetError("as asked")


@contextmanager
def faulty_storage(seed: int = 0) -> Iterator[FaultyStorage]:
    """A storage that ends with the context."""
    storage = FaultyStorage(seed)
    try:
        yield storage
    finally:
        storage.close()
