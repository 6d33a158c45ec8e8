"""Requests per second and latency of `hardmine search --serve`: `python -m benchmarks.serving [--items 100000] [--seconds 10]`.

A generated catalogue under a small static model is exported and served by one process; clients in another ask it, each with one
request after the other. `ours_s` is the mean time between two answers. The peer is the least that a service can do: the same
server and the same index, asked with vectors that were encoded before, which answers with ids only (no text is encoded, no title
read, nothing counted). `p95_ms` is what a client waits. Case `soak` asks for --soak seconds; `mib_*` is the memory of the server,
after a tenth of the time and at its end.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving.made_up import MadeUp
from benchmarks.shared.command import Row, chosen_cases, compared, emit, make_parser
from cluster.storage.store import Store
from jobs.serving.export.index import Budget, IndexKind
from jobs.serving.export.ship import export_source

CLIENTS = (1, 8, 32)
CASES = (*(f"{count} clients" for count in CLIENTS), "soak")
PORT = 8377


def serve_both(folder: str, port: int) -> None:
    """The service, with the peer as one more endpoint. Runs in a process of its own."""
    import faiss
    import uvicorn
    from fastapi.responses import JSONResponse

    from jobs.serving.search.http import Service, make_app
    from jobs.serving.search.opened import open_export

    opened = open_export(folder)
    app = make_app(Service([opened]))
    index: Any = faiss.read_index(str(opened.folder / "index/index.faiss"))
    vectors = np.load(Path(folder) / "queries.npy")
    ids = opened.ids.to_pylist()

    @app.get("/plain")
    def plain(n: int) -> Any:
        return JSONResponse([ids[row] for row in index.search(vectors[n][None], 10)[1][0]])

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


@contextmanager
def served(folder: str) -> Iterator[int]:
    """The service in another process; its process id."""
    import socket

    command = "import sys; from benchmarks.serving.__main__ import serve_both; serve_both(sys.argv[1], int(sys.argv[2]))"
    process = subprocess.Popen([sys.executable, "-c", command, folder, str(PORT)])
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", PORT)) == 0:
                    break
            time.sleep(0.2)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


async def ask(paths: list[str], clients: int, seconds: float) -> list[float]:
    """Seconds that each answer took."""
    import aiohttp

    took: list[float] = []
    until = time.monotonic() + seconds
    async with aiohttp.ClientSession(f"http://127.0.0.1:{PORT}", connector=aiohttp.TCPConnector(limit=clients)) as session:

        async def client(number: int) -> None:
            while time.monotonic() < until:
                started = time.monotonic()
                async with session.get(paths[number % len(paths)]) as answer:
                    await answer.read()
                    assert answer.status == 200, answer.status
                took.append(time.monotonic() - started)
                number += clients

        await asyncio.gather(*(client(number) for number in range(clients)))
    return took


def measure(asked: list[str], clients: int, seconds: float) -> Row:
    """Both sides, one after the other."""
    from urllib.parse import quote

    ours = asyncio.run(ask([f"/search?q={quote(text)}" for text in asked], clients, seconds))
    peer = asyncio.run(ask([f"/plain?n={number}" for number in range(len(asked))], clients, seconds))
    row = compared(f"{clients} clients", seconds / len(ours), "plain FAISS, same server", seconds / len(peer))
    times = {"p50_ms": np.quantile(ours, 0.5), "p95_ms": np.quantile(ours, 0.95), "peer_p95_ms": np.quantile(peer, 0.95)}
    return row | {"per_second": len(ours) / seconds} | {name: 1e3 * float(value) for name, value in times.items()}


def soak(asked: list[str], seconds: float, process: int) -> Row:
    """Eight clients for a while: the server's memory after a tenth of the time, and at its end."""
    from urllib.parse import quote

    paths = [f"/search?q={quote(text)}" for text in asked]
    asyncio.run(ask(paths, 8, seconds / 10))
    before = _resident(process)
    took = asyncio.run(ask(paths, 8, 0.9 * seconds))
    return compared("soak", 0.9 * seconds / len(took)) | {"mib_before": before, "mib_after": _resident(process)}


def _resident(process: int) -> float:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Run the cases and print the rows."""
    parser = make_parser(__doc__, cases=CASES, default=CASES[:-1])
    parser.add_argument("--items", type=int, default=100_000, help="items of the catalogue (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each side of a case (%(default)s)")
    parser.add_argument("--soak", type=float, default=300.0, help="seconds of the soak (%(default)s)")
    parser.add_argument("--index", default=None, help="kind of index (default: by size)")
    given = parser.parse_args()
    kind: IndexKind | None = given.index
    rows = []
    with tempfile.TemporaryDirectory(prefix="hardmine-bench-") as scratch:
        source = MadeUp(Path(scratch) / "model", given.items)
        exported = export_source(source, Store(f"{scratch}/exports"), Budget(kind=kind, min_recall=0.9))
        np.save(f"{exported.path}/queries.npy", source.queries())
        with served(exported.path) as process:
            for case in chosen_cases(given):
                row = soak(source.asked, given.soak, process) if case == "soak" else None
                row = row or measure(source.asked, int(case.split()[0]), given.seconds)
                rows.append(row | {"index": exported.choice.kind, "items": given.items, "recall": exported.choice.recall})
    emit(rows, as_json=given.json)


if __name__ == "__main__":
    main()
