"""A server on loopback that answers POSTs of JSON as a test says, and keeps what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One request."""

    number: int
    """Of all requests, from 0."""
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: Any
    at: float
    """When it came, by the monotonic clock."""


@dataclass(frozen=True)
class Reply:
    """What the server does; a handler may return plain JSON instead."""

    status: int = 200
    body: Any = None
    """JSON, or bytes as they are."""
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    """Half of the body is sent, then the connection ends."""


@dataclass
class JsonServer:
    """What a test sees of it."""

    address: str
    asked: list[Asked] = field(default_factory=list)
    most_at_once: int = 0
    under_way: int = 0

    @property
    def bodies(self) -> list[Any]:
        """What was asked, in order."""
        return [each.body for each in self.asked]


@contextmanager
def serving(answer: Callable[[Asked], Any], path: str = "/rerank") -> Iterator[JsonServer]:
    """A server whose POSTs `answer` answers, each in a thread of its own."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet for headers and body: else each answer waits 40 ms for an acknowledgement

        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = json.loads(self.rfile.read(int(headers["content-length"])))
            with lock:
                asked = Asked(len(seen.asked), self.path, headers, body, time.monotonic())
                seen.asked.append(asked)
                seen.under_way += 1
                seen.most_at_once = max(seen.most_at_once, seen.under_way)
            try:
                reply = answer(asked)
            finally:
                with lock:
                    seen.under_way -= 1
            self._send(reply if isinstance(reply, Reply) else Reply(body=reply))

        def _send(self, reply: Reply) -> None:
            data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if reply.cut else data)
            self.close_connection = reply.cut

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_: object) -> None:
            """A client that went away is no failure."""

    with Quiet(("127.0.0.1", 0), Handler) as server:
        seen = JsonServer(f"http://127.0.0.1:{server.server_address[1]}{path}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield seen
        finally:
            server.shutdown()
            thread.join()
