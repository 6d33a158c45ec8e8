"""`hardmine search FOLDER "query"`: one query, answered by one export or by two side by side, with the time that it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from jobs.serving.search.opened import Opened, refuse_pair

REPEATS = 30
"""Times that the query is encoded and searched for the percentiles."""


def answer(exports: Sequence[Opened], query: str, hits: int, where: Sequence[str]) -> dict[str, Any]:
    """What `--json` prints: {"query", "where", "answers": [{"export", "hits", "ms": {"encode", "search": [p50, p95]}}]}; with a
    re-ranker also "search and re-rank".

    Raises:
        ConfigError: a filter cannot be read, or the exports read different things. DataError: the query cannot be read.
    """
    if len(exports) == 2:
        refuse_pair(*exports)
    return {"query": query, "where": list(where), "answers": [_answer(opened, query, hits, where) for opened in exports]}


def _answer(opened: Opened, query: str, hits: int, where: Sequence[str]) -> dict[str, Any]:
    mask = opened.mask(where)
    vectors = opened.encode([query])
    shown = opened.shown(opened.ranked(query, vectors, hits, mask))
    times = {
        "encode": _percentiles(lambda: opened.encode([query])),
        "search": _percentiles(lambda: opened.search(vectors, hits, mask)),
    }
    if opened.rerank is not None:
        times["search and re-rank"] = _percentiles(lambda: opened.ranked(query, vectors, hits, mask), repeats=5)
    return {"export": opened.name, "index": opened.stamp.index["kind"], "hits": shown, "ms": times}


def _percentiles(work: Callable[[], object], repeats: int = REPEATS) -> list[float]:
    took = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        took.append(1e3 * (time.perf_counter() - started))
    return [round(float(value), 3) for value in np.quantile(took, [0.5, 0.95])]


def show_answer(console: Console, result: dict[str, Any]) -> None:
    """Print the hits; of two exports in two columns, with the position under the other one."""
    answers = result["answers"]
    other = [{hit["id"]: hit["position"] for hit in one["hits"]} for one in reversed(answers)] if len(answers) == 2 else [{}]
    for one, there in zip(answers, other, strict=True):
        table = Table(title=one["export"], title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        score = "re-ranker" if "search and re-rank" in one["ms"] else "cosine"
        for name in ("", score, "id", "title", *(["position\nin the other"] if len(answers) == 2 else [])):
            table.add_column(name, justify="right" if name in ("", score, "position\nin the other") else "left")
        for hit in one["hits"]:
            moved = [str(there.get(hit["id"], "–"))] if len(answers) == 2 else []
            table.add_row(str(hit["position"]), f"{hit['score']:.3f}", hit["id"], _cell(hit["title"]), *moved)
        console.print(table, markup=False)
        if not one["hits"]:
            console.print("no item fits the filters")
        encode, search = one["ms"]["encode"], one["ms"]["search"]
        console.print(
            f"encoding {encode[0]:.2f} ms (95th percentile {encode[1]:.2f}), searching {search[0]:.2f} ms ({search[1]:.2f}), "
            f"{one['index']} index{_reranked(one['ms'])}\n",
            highlight=False,
        )


def _reranked(times: dict[str, list[float]]) -> str:
    both = times.get("search and re-rank")
    return f"; with re-ranking {both[0]:.1f} ms ({both[1]:.1f})" if both else ""


def _cell(text: str) -> str:
    """A title as it is: rich would read brackets in it as markup."""
    return text.replace("[", "\\[")
