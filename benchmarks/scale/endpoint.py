"""An S3 server on this machine (moto) behind a proxy that counts requests and bytes, and may take longer for each of them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

KEYS = {"AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "benchmark", "AWS_EC2_METADATA_DISABLED": "true"}
BUCKET = "scale"
OWN = ("content-length", "transfer-encoding", "connection")
"""Headers that the proxy writes itself."""


@dataclass
class Endpoint:
    """Its address, and what passed through it."""

    url: str
    server: str
    """Address of the server behind it, where nothing is counted."""
    delay_s: float = 0.0
    requests: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reset(self, delay_s: float) -> None:
        """Count from 0, with this delay."""
        self.delay_s, self.requests, self.sent_bytes, self.received_bytes = delay_s, 0, 0, 0

    def upload(self, folder: Path, prefix: str) -> None:
        """Put a folder's files into the bucket, uncounted."""
        import botocore.session

        client = botocore.session.get_session().create_client("s3", endpoint_url=self.server, region_name="us-east-1")
        client.create_bucket(Bucket=BUCKET)
        for path in sorted(folder.rglob("*.parquet")):
            client.put_object(Bucket=BUCKET, Key=f"{prefix}/{path.relative_to(folder)}", Body=path.read_bytes())


@contextmanager
def counting_endpoint() -> Iterator[Endpoint]:
    """The server and its proxy; both end with the block."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    endpoint = Endpoint("", f"http://{host}:{port}")
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), _handler(endpoint, host, port))
    endpoint.url = f"http://127.0.0.1:{proxy.server_address[1]}"
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield endpoint
    finally:
        proxy.shutdown()
        moto.stop()


def _handler(endpoint: Endpoint, host: str, port: int) -> type[BaseHTTPRequestHandler]:
    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length else None
            time.sleep(endpoint.delay_s)
            onward = HTTPConnection(host, port)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in ("connection", "expect")}
            onward.request(self.command, self.path, body, headers)
            response = onward.getresponse()
            data = response.read()
            with endpoint.lock:
                endpoint.requests += 1
                endpoint.received_bytes += length
                endpoint.sent_bytes += len(data)
            self.send_response(response.status)
            for name, value in response.headers.items():
                if name.lower() not in OWN:
                    self.send_header(name, value)
            size = response.headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(data))
            self.send_header("Content-Length", size)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)
            onward.close()

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Nothing."""

    return Proxy
