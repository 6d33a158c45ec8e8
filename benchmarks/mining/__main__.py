"""Searching and mining against the tools their users have: `python -m benchmarks.mining [--case search]`.

Cases, with the sizes that docs/mining.md quotes (the defaults are smaller: they end within two minutes):
    search    200,000 × 384, 4,096 queries, K = 100 and 1,000: the matrix product alone (the floor), faiss.knn,
              IndexFlatIP.search, torch matmul + topk, and ours exact and two-stage, ready for the next stage (ordered,
              ties settled).
    pipeline  the same counts from stored vectors to stored negatives: shards, merge, every filter, writing; in this
              process, without the seconds that Ray needs to start.
    peer      sentence_transformers.util.mine_hard_negatives on 50,000 items and 5,000 queries, with and without FAISS; the
              vectors are given to both. Needs the extra "bench".
    scale     1,000,000 × 384, 20,000 queries over Ray actors: exact and auto, with the peak memory of every process.
    growth    100,000 to 3,000,000 items, 2,048 queries over Ray actors: seconds per item and query, memory of the driver.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.mining.ours import THREADS
from benchmarks.mining.peer import case_peer
from benchmarks.mining.scale import case_growth, case_scale
from benchmarks.mining.search import case_search
from benchmarks.mining.whole import case_pipeline
from benchmarks.shared.command import Row, chosen_cases, emit, has_package, make_parser

CASES: dict[str, tuple[Callable[[int, int, int], list[Row]], int, int]] = {
    "search": (case_search, 30_000, 1024),
    "pipeline": (case_pipeline, 30_000, 1024),
    "peer": (case_peer, 10_000, 1000),
    "scale": (case_scale, 100_000, 2048),
    "growth": (case_growth, 300_000, 2048),
}
"""Case -> (what runs it, items, queries)."""


def main() -> None:
    """Run some cases."""
    parser = make_parser(__doc__, cases=CASES, default=("search", "pipeline"), runs=3)
    parser.add_argument("--items", type=int, help="items of the generated catalogue; growth: of the largest one")
    parser.add_argument("--queries", type=int)
    given = parser.parse_args()
    from cluster.session.session import set_threads

    set_threads(THREADS)
    rows: list[Row] = []
    for name in chosen_cases(given):
        if name == "peer" and not has_package("datasets", "the case peer"):
            continue
        case, items, queries = CASES[name]
        rows += case(given.runs, given.items or items, given.queries or queries)
    emit(rows, as_json=given.json)


if __name__ == "__main__":
    main()
