"""Searching and mining against the tools their users have: `python -m benchmarks.mining --case search`.

Cases:
    search    200,000 × 384, 4,096 queries, K = 100 and 1,000: the matrix product alone (the floor), faiss.knn,
              IndexFlatIP.search, torch matmul + topk, and ours exact and two-stage, ready for the next stage (ordered,
              ties settled).
    pipeline  the same counts from stored vectors to stored negatives: shards, merge, every filter, writing; in this
              process, without the seconds that Ray needs to start.
    peer      sentence_transformers.util.mine_hard_negatives on 50,000 items, with and without FAISS; the vectors are given
              to both.
    scale     1,000,000 × 384, 20,000 queries over Ray actors: exact and auto, with the peak memory of every process.
    growth    100,000 to 3,000,000 items over Ray actors: seconds per item and query, memory of the driver.

Needs the extra "bench" for the peer: `.venv/bin/pip install -c constraints.txt -e ".[cpu,bench]"`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shared import catalogue
from benchmarks.shared.catalogue import Catalogue, float_vectors
from benchmarks.shared.machine import emit, paired
from cluster.tables import F32
from mining.negatives import MineTask, load_side, mine_block
from mining.search.block_actor import BlockActor
from mining.search.engines import make_engine
from mining.search.how import How
from mining.search.shard_actor import ShardActor
from mining.search.shards import plan_blocks, plan_shards
from mining.search.topk import Shard, exact_topk
from mining.settings import MiningSettings, Rule

Row = dict[str, Any]
FILTERS: dict[str, Any] = {
    "rules": (Rule(column="genres", keep="disjoint"), Rule(column="brand", keep="different")),
    "min_score": -0.5,
    "max_score": 0.99,
    "relative_margin": 0.05,
    "skip_first": 1,
    "choose": "softmax",
}
EXACT_WAYS = {"faiss": How("exact", "faiss"), "int8": How("exact", "int8", 2.0)}
TWO_STAGE = How("two_stage", "int8", 1.25)


def threads(count: int) -> None:
    """Everything on `count` threads."""
    import faiss
    import torch

    from cluster.session import set_threads

    assert faiss is not None
    assert torch is not None
    set_threads(count)


def product(queries_QD: F32, items_ND: F32) -> None:
    """The float32 matrix product alone, in blocks of 8,192 items."""
    import torch

    queries, items = torch.from_numpy(queries_QD), torch.from_numpy(items_ND)
    for start in range(0, len(items), 8192):
        queries @ items[start : start + 8192].T


def case_search(runs: int, items: int, queries: int) -> list[Row]:
    """See the module."""
    import faiss
    import torch

    items_ND, queries_QD = float_vectors(items, seed=1), float_vectors(queries, seed=2)
    index = faiss.IndexFlatIP(items_ND.shape[1])
    index.add(items_ND)
    rows: list[Row] = []
    for num_hits in (100, 1000):

        def by_torch(num_hits: int = num_hits) -> None:
            found = []
            for start in range(0, queries, 512):
                found.append((torch.from_numpy(queries_QD[start : start + 512]) @ torch.from_numpy(items_ND).T).topk(num_hits))

        def ours(name: str, *, certain: bool, oversample: float, num_hits: int = num_hits) -> Callable[[], Any]:
            def work() -> Any:  # the 8-bit copy is made anew each time: it belongs to the price
                engine = make_engine(name, items_ND, certain=certain, oversample=oversample)  # type: ignore[arg-type]
                return exact_topk(queries_QD, Shard(items_ND, engine), num_hits)

            return work

        works: dict[str, Callable[[], Any]] = {
            "floor": lambda: product(queries_QD, items_ND),
            "faiss.knn": lambda k=num_hits: faiss.knn(queries_QD, items_ND, k, metric=faiss.METRIC_INNER_PRODUCT),
            "IndexFlatIP.search": lambda k=num_hits: index.search(queries_QD, k),
            "torch matmul+topk": by_torch,
            "ours exact (faiss)": ours("faiss", certain=True, oversample=1.0),
            "ours exact (8 bits, certain)": ours("int8", certain=True, oversample=2.0),
            "ours two-stage": ours("int8", certain=False, oversample=1.25),
        }
        took = paired(works, runs)
        truth = works["ours exact (faiss)"]()[1]
        for name in [name for name in works if name.startswith("ours")]:
            recall = _recall(works[name]()[1], truth)
            for peer in ("floor", "faiss.knn", "IndexFlatIP.search", "torch matmul+topk"):
                rows.append(_row(f"search K={num_hits} {name}", took[name], peer, took[peer], took["floor"]) | {"recall": recall})
    return rows


def _recall(found_QK: np.ndarray[Any, Any], true_QK: np.ndarray[Any, Any]) -> float:
    some = slice(None, None, max(1, len(true_QK) // 256))
    return float(
        np.mean([len(np.intersect1d(found, true)) / len(true) for found, true in zip(found_QK[some], true_QK[some], strict=True)])
    )


def _row(case: str, ours_s: float, peer: str, peer_s: float, floor_s: float) -> Row:
    return {
        "case": case,
        "ours_s": ours_s,
        "peer": peer,
        "peer_s": peer_s,
        "ratio": peer_s / ours_s,
        "floor_share": floor_s / ours_s,
    }


@contextmanager
def made(**options: Any) -> Iterator[Catalogue]:
    """A catalogue in a temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="hardmine-benchmark-"))
    try:
        # in a process of its own: what generating takes must not count as memory of what is measured
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as maker:
            data = maker.submit(catalogue.make, folder, **options).result()
        yield data
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def pipeline(data: Catalogue, num_hits: int, how: How, folder: str, *, shards: int, settings: MiningSettings) -> dict[str, float]:
    """From stored vectors to stored negatives in this process, with the classes that Ray runs as actors; seconds by step."""
    task, took = data.search_task(f"{folder}/hits", num_hits), dict.fromkeys(("load", "search", "write", "mine"), 0.0)
    blocks = plan_blocks(np.arange(data.num_queries), 4096)
    ranges = plan_shards(data.num_items, shards=shards, actors=1, shard_rows=10**7)
    holders, writer = [ShardActor(task, 2, None, "shard") for _ in ranges], BlockActor(task)
    threads(2)
    parts = []
    for block in blocks:
        started = time.perf_counter()
        loaded = writer.load(block)
        took["load"] += time.perf_counter() - started
        found = []
        for holder, rows in zip(holders, ranges, strict=True):
            started = time.perf_counter()
            hits = holder.search(rows, loaded, how)
            took["search"] += hits.seconds
            took["load"] += time.perf_counter() - started - hits.seconds
            found.append(hits)
        started = time.perf_counter()
        parts.append(writer.write(f"{folder}/hits/{block.index}.parquet", loaded, None, *found)[0])
        took["write"] += time.perf_counter() - started
    started = time.perf_counter()
    mine_task = MineTask(data.store, parts, data.labels, data.corpus, data.queries, settings, f"{folder}/negatives", 1)
    side = load_side(mine_task)
    for number in range(len(parts)):
        mine_block(mine_task, number, side)
    took["mine"] += time.perf_counter() - started
    return took


def case_pipeline(runs: int, items: int, queries: int) -> list[Row]:
    """See the module."""
    import faiss

    items_ND, queries_QD = float_vectors(items, seed=1), float_vectors(queries, seed=2)
    rows: list[Row] = []
    with made(items=items, queries=queries) as data:
        for num_hits in (100, 1000):
            settings = MiningSettings(num_hits=num_hits, num_negatives=32, **FILTERS)
            steps: dict[str, dict[str, float]] = {}

            def whole(
                name: str,
                how: How,
                shards: int,
                num_hits: int = num_hits,
                settings: MiningSettings = settings,
                steps: dict[str, dict[str, float]] = steps,
            ) -> Callable[[], None]:
                def work() -> None:
                    took = pipeline(data, num_hits, how, f"out-{name}-{shards}", shards=shards, settings=settings)
                    steps[f"{name}, {shards} shard{'s' if shards > 1 else ''}"] = took

                return work

            works = {
                "floor": lambda: product(queries_QD, items_ND),
                "faiss.knn": lambda k=num_hits: faiss.knn(queries_QD, items_ND, k, metric=faiss.METRIC_INNER_PRODUCT),
                **{f"exact ({name}), 1 shard": whole(name, how, 1) for name, how in EXACT_WAYS.items()},
                "exact (int8), 2 shards": whole("int8", EXACT_WAYS["int8"], 2),
                "two-stage, 1 shard": whole("two-stage", TWO_STAGE, 1),
                "two-stage, 2 shards": whole("two-stage", TWO_STAGE, 2),
            }
            took = paired(works, runs)
            for name in [name for name in works if name not in ("floor", "faiss.knn")]:
                inner = steps[name.removeprefix("exact (").replace(")", "")]
                for peer in ("floor", "faiss.knn"):
                    rows.append(
                        _row(f"pipeline K={num_hits} {name}", took[name], peer, took[peer], took["floor"])
                        | {step: round(seconds, 2) for step, seconds in inner.items()}
                        | {"filters_of_search": round(inner["mine"] / inner["search"], 3)}
                    )
    return rows


CASES: dict[str, Callable[..., list[Row]]] = {}


def main() -> None:
    """Run some cases."""
    from benchmarks.mining.__main__ import peer as mining_peer
    from benchmarks.mining.__main__ import scale as mining_scale

    CASES.update(
        search=case_search,
        pipeline=case_pipeline,
        peer=mining_peer.case_peer,
        scale=mining_scale.case_scale,
        growth=mining_scale.case_growth,
    )
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=sorted(CASES), action="append", help="default: search and pipeline")
    parser.add_argument("--runs", type=int, default=5, help="paired runs; the median counts")
    parser.add_argument("--items", type=int)
    parser.add_argument("--queries", type=int)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    threads(2)
    sizes = {
        "search": (200_000, 4096),
        "pipeline": (200_000, 4096),
        "peer": (50_000, 5000),
        "scale": (1_000_000, 20_000),
        "growth": (3_000_000, 2048),
    }
    rows: list[Row] = []
    for case in given.case or ["search", "pipeline"]:
        items, queries = sizes[case]
        rows += CASES[case](given.runs, given.items or items, given.queries or queries)
    emit(rows, as_json=given.json)


if __name__ == "__main__":
    main()
