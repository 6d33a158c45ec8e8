"""`hardmine search --serve`: an export, or two side by side, over HTTP. Needs the extra `serve`.

    GET /search?q=…&k=10&where=genre=crime&export=NAME   one list of hits
    GET /interleave?q=…&k=10                             two exports as one list, by team draft; each hit names its team
    GET /health   /metrics                               for whoever watches it
    GET /                                                a page to try queries

Every answer has a `query_id`. With a log each search is a line in the shape of UBI's queries (ubisearch.dev), which `hardmine
compare-live` replays; whoever shows the hits logs clicks as UBI events with that id.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cluster.errors import ConfigError, HardmineError
from eval.live.interleaving import team_draft
from jobs.serving.search.opened import Opened, refuse_pair, stamp_json
from jobs.serving.search.query_encoder import describe_query

PAGE = Path(__file__).parent / "page.html"
MOST_HITS = 1_000
BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds, for the histogram of how long queries take."""


class QueryLog:
    """Searches as JSON lines; each is written at once and whole."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--log {path}: cannot be written ({error.strerror}); name another file") from error

    def write(self, line: dict[str, Any]) -> None:
        """Append one line."""
        with self._lock:
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._file.flush()


class Service:
    """What the endpoints do."""

    def __init__(self, exports: Sequence[Opened], log: QueryLog | None = None) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        if len(exports) == 2:
            refuse_pair(*exports)
        self.exports = {opened.name: opened for opened in exports}
        if len(self.exports) < len(exports):
            raise ConfigError(f"expected two exports to compare, found {exports[0].name} twice; name another one with --beside")
        self._log = log
        self.registry = CollectorRegistry()
        self._count = Counter("hardmine_searches", "Searches that were answered", ["export"], registry=self.registry)
        self._refused = Counter("hardmine_refused", "Searches that could not be answered", registry=self.registry)
        self._seconds = Histogram(
            "hardmine_seconds", "Seconds a query took", ["export", "part"], buckets=BUCKETS, registry=self.registry
        )
        items = Gauge("hardmine_items", "Items that are searched", ["export"], registry=self.registry)
        for name, opened in self.exports.items():
            items.labels(name).set(opened.stamp.items)

    def find(self, name: str | None) -> Opened:
        """An export by name; without one the first. Raises ConfigError: there is no such."""
        if name is None:
            return next(iter(self.exports.values()))
        if name not in self.exports:
            raise ConfigError(f"export={name}: expected {' or '.join(self.exports)}; leave it out for the first")
        return self.exports[name]

    def search(self, query: str, hits: int, where: Sequence[str], name: str | None) -> dict[str, Any]:
        """The answer of /search."""
        opened = self.find(name)
        shown, took = self._hits(opened, query, hits, where)
        answer = {"query_id": str(uuid.uuid4()), "query": query, "export": opened.name, "ms": took, "hits": shown}
        self._write(answer, where, {"export": opened.name})
        return answer

    def interleave(self, query: str, hits: int, where: Sequence[str]) -> dict[str, Any]:
        """The answer of /interleave: team a is the first export, b the second. Raises ConfigError: there is one export only."""
        if len(self.exports) != 2:
            raise ConfigError("interleaving needs two exports; start the service with --beside OTHER")
        query_id = uuid.uuid4()
        sides = [self._hits(opened, query, hits, where) for opened in self.exports.values()]
        known: dict[Any, dict[str, Any]] = {hit["id"]: hit for shown, _ in reversed(sides) for hit in shown}
        a, b = ([hit["id"] for hit in shown] for shown, _ in sides)
        mixed = team_draft(a, b, hits, np.random.default_rng(query_id.int))
        shown = [
            known[item] | {"position": position, "team": team}
            for position, (item, team) in enumerate(zip(mixed.items, mixed.teams, strict=True), start=1)
        ]
        answer = {"query_id": str(query_id), "query": query, "exports": dict(zip("ab", self.exports, strict=True)), "hits": shown}
        self._write(answer, where, {"exports": answer["exports"], "teams": mixed.teams})
        return answer

    def refused(self) -> None:
        """Count a search that could not be answered."""
        self._refused.inc()

    def _hits(self, opened: Opened, query: str, hits: int, where: Sequence[str]) -> tuple[list[dict[str, Any]], dict[str, float]]:
        started = time.perf_counter()
        mask = opened.mask(where)
        vectors = opened.encode([query])
        encoded = time.perf_counter()
        shown = opened.shown(opened.ranked(query, vectors, hits, mask))
        ended = time.perf_counter()
        self._count.labels(opened.name).inc()
        for part, seconds in (("encode", encoded - started), ("search", ended - encoded)):
            self._seconds.labels(opened.name, part).observe(seconds)
        return shown, {"encode": round(1e3 * (encoded - started), 2), "search": round(1e3 * (ended - encoded), 2)}

    def _write(self, answer: dict[str, Any], where: Sequence[str], attributes: dict[str, Any]) -> None:
        if self._log is not None:
            self._log.write(
                {
                    "application": "hardmine",
                    "query_id": answer["query_id"],
                    "user_query": answer["query"],
                    "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                    "query_response_hit_ids": [hit["id"] for hit in answer["hits"]],
                    "query_attributes": attributes | ({"where": list(where)} if where else {}),
                }
            )


def make_app(service: Service) -> Any:
    """The application that uvicorn runs.

    Raises:
        ConfigError: the extra `serve` is not installed.
    """
    try:
        from fastapi import FastAPI, Query
        from fastapi.exceptions import RequestValidationError
        from fastapi.responses import HTMLResponse, JSONResponse, Response
    except ImportError as error:
        raise ConfigError("--serve needs FastAPI and uvicorn; pip install 'hardmine[serve]'") from error
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    app = FastAPI(title="hardmine search", docs_url=None, redoc_url=None, lifespan=_few_threads)
    listed: Any = Query(default=[])
    number: Any = Query(default=10, ge=1, le=MOST_HITS)

    @app.exception_handler(HardmineError)
    def refused(_: Any, error: HardmineError) -> Any:
        service.refused()
        return JSONResponse({"error": str(error)}, status_code=422)

    @app.exception_handler(RequestValidationError)
    def misread(_: Any, error: RequestValidationError) -> Any:
        service.refused()
        first = error.errors()[0]
        return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}"}, status_code=422)

    @app.get("/search")
    def search(q: str, k: int = number, where: list[str] = listed, export: str | None = None) -> Any:
        return JSONResponse(service.search(q, k, where, export))

    @app.get("/interleave")
    def interleave(q: str, k: int = number, where: list[str] = listed) -> Any:
        return JSONResponse(service.interleave(q, k, where))

    @app.get("/health")
    def health() -> Any:
        return JSONResponse({"status": "ok", "exports": [stamp_json(opened) for opened in service.exports.values()]})

    @app.get("/metrics")
    def metrics() -> Any:
        return Response(generate_latest(service.registry), media_type=CONTENT_TYPE_LATEST)

    page = PAGE.read_text(encoding="utf-8").replace("/*exports*/", _for_the_page(service))

    @app.get("/")
    def index() -> Any:
        return HTMLResponse(page)

    return app


@asynccontextmanager
async def _few_threads(_: Any) -> AsyncIterator[None]:
    """As many queries at a time as there are processors, each on one: more would wait for each other, and all answer later."""
    import anyio.to_thread
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    anyio.to_thread.current_default_thread_limiter().total_tokens = max(2, os.cpu_count() or 1)
    yield
    torch.set_num_threads(before)


def _for_the_page(service: Service) -> str:
    exports = [stamp_json(opened) for opened in service.exports.values()]
    reads = next(iter(service.exports.values())).stamp.reads
    value = json.dumps({"exports": exports, "query": describe_query(reads)}, ensure_ascii=False)
    return value.replace("<", "\\u003c")  # it stands in a script


def serve(service: Service, host: str, port: int) -> None:
    """Answer until Ctrl-C. Raises ConfigError: the extra is missing, or the port is taken."""
    import socket

    app = make_app(service)
    import uvicorn

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(f"--port {port} on {host} cannot be used ({error.strerror}); choose another") from error
    uvicorn.run(app, host=host, port=port, log_level="warning")
