"""The FAISS index of an export: which kind fits a budget, built on vectors, its recall measured against exact search.

    flat    every vector in float32, all of them read: exact
    hnsw    float32 and a graph (32 links): fast, needs the most memory, slow to build
    ivf     float32 in lists, the nearest of which are read
    sq8     8 bits a dimension, all of them read: a quarter of the memory
    ivfpq   lists of product-quantised vectors: the least memory

The same vectors give the same bytes again: graph and k-means are computed by one thread, with a fixed seed.

N items, Q queries, D dimensions, K hits.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from cluster.errors import ConfigError
from cluster.tables.tables import F32, I64
from mining.search.ivf import usual_lists

IndexKind = Literal["flat", "hnsw", "ivf", "ivfpq", "sq8"]
FEW, MANY = 50_000, 2_000_000
"""Up to FEW items, reading all takes a few milliseconds; from MANY on, a graph takes hours to build."""
LEAST_FOR_LISTS, LEAST_FOR_PQ = 1_000, 10_000
"""Items that k-means needs for its centroids: 39 for each."""
LINKS = 32
SAMPLE_PER_LIST = 64
RECALL_AT = 10
TIMED = 200
"""Queries that are timed one by one."""
SETTINGS = {"flat": (0,), "sq8": (0,), "hnsw": (32, 64, 128, 256, 512), "ivf": (1, 2, 4, 8, 16, 32, 64, 128, 256)}
SETTINGS["ivfpq"] = SETTINGS["ivf"]
"""efSearch of a graph, nprobe of lists: the smallest that reaches the recall is kept."""
ADD_ROWS = 65_536
TIE = 1e-5
"""Scores that differ by less are equal: a float32 product is summed in another order each time."""


@dataclass(frozen=True)
class Budget:
    """What the index may cost."""

    kind: IndexKind | None = None
    """None: the first that fits the rest."""
    memory_mb: float | None = None
    latency_ms: float | None = None
    """95th percentile of one query's search on one core of this machine, without its encoding."""
    min_recall: float = 0.95
    """Share of the exact ten nearest items that must be found."""


@dataclass(frozen=True)
class Choice:
    """An index that was built, and what it measured."""

    kind: IndexKind
    setting: int
    """efSearch or nprobe; 0: there is none."""
    recall: float
    """Recall@10 against exact search."""
    queries: int
    """It was measured on these many queries."""
    megabytes: float
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    tried: list[dict[str, Any]] = field(default_factory=list)
    """Kinds that were built before and did not fit."""

    def as_json(self) -> dict[str, Any]:
        """As `--json` has it."""
        return asdict(self)

    @property
    def lasting(self) -> dict[str, Any]:
        """What is the same each time, for the stamp: no times."""
        return {
            name: value for name, value in self.as_json().items() if name in ("kind", "setting", "recall", "queries", "megabytes")
        }


def index_bytes(kind: IndexKind, items: int, dimension: int) -> int:
    """Bytes that an index holds in memory, about."""
    lists = usual_lists(items) * 4 * dimension + 8 * items
    return {
        "flat": 4 * items * dimension,
        "hnsw": items * (4 * dimension + 8 * LINKS + 16),
        "ivf": 4 * items * dimension + lists,
        "sq8": items * dimension,
        "ivfpq": items * sub_vectors(dimension) + lists + 1024 * dimension,
    }[kind]


def sub_vectors(dimension: int) -> int:
    """Bytes of a product-quantised vector: a sub-vector of four dimensions each, or of as many as divide them."""
    return next(dimension // size for size in (4, 5, 6, 7, 8, 3, 2, 1) if dimension % size == 0)


def candidates(items: int, dimension: int, budget: Budget) -> list[IndexKind]:
    """The kinds that fit the memory, best first.

    Raises:
        ConfigError: none does, or the one that was asked for does not.
    """
    kinds: tuple[IndexKind, ...] = ("flat", "hnsw", "ivf", "sq8", "ivfpq")
    if items > FEW:
        kinds = ("hnsw", "ivf", "flat", "sq8", "ivfpq") if items < MANY else ("ivf", "hnsw", "flat", "sq8", "ivfpq")
    if budget.kind is not None:
        kinds = (budget.kind,)
    least = {"ivf": LEAST_FOR_LISTS, "ivfpq": LEAST_FOR_PQ}
    enough = [kind for kind in kinds if items >= least.get(kind, 1)]
    fitting = [
        kind for kind in enough if budget.memory_mb is None or index_bytes(kind, items, dimension) <= budget.memory_mb * 1e6
    ]
    if not enough:
        raise ConfigError(f"--index {budget.kind} needs {least[str(budget.kind)]:,} items or more, found {items:,}; take flat")
    if not fitting:
        sizes = ", ".join(f"{kind} {index_bytes(kind, items, dimension) / 1e6:,.1f} MB" for kind in enough)
        raise ConfigError(
            f"--memory-mb {budget.memory_mb:g}: no index of {items:,} vectors of {dimension} dimensions is that small "
            f"({sizes}); raise it, or train a model with fewer dimensions"
        )
    return fitting


def choose_index(vectors_ND: F32, queries_QD: F32, budget: Budget, *, seed: int = 0) -> tuple[Any, Choice]:
    """Build the kinds that fit the memory, best first, until one has the recall and the latency.

    Args:
        vectors_ND: of unit length; may be a memory map.
        queries_QD: what recall and latency are measured with; at least one.

    Returns:
        (FAISS index by inner product, its efSearch or nprobe set; what it measured).

    Raises:
        ConfigError: none has; it names what each measured.
    """
    kinds = candidates(len(vectors_ND), vectors_ND.shape[1], budget)
    exact = exact_scores(vectors_ND, queries_QD)
    tried: list[dict[str, Any]] = []
    for kind in kinds:
        index = build_index(kind, vectors_ND, seed=seed)
        choice = _tuned(kind, index, vectors_ND, queries_QD, exact, budget)
        late = budget.latency_ms is not None and choice.p95_ms > budget.latency_ms
        if choice.recall >= budget.min_recall and not late:
            return index, Choice(**choice.as_json() | {"tried": tried})
        tried.append(choice.as_json() | {"why": "slow" if late else "recall"})
    measured = "; ".join(f"{one['kind']}: recall@10 {one['recall']:.3f}, {one['p95_ms']:.2f} ms" for one in tried)
    limit = "" if budget.latency_ms is None else f" and --latency-ms {budget.latency_ms:g} (95th percentile)"
    raise ConfigError(
        f"no index keeps --min-recall {budget.min_recall:g}{limit}, found {measured}; lower the recall, or give more "
        f"{'memory' if budget.memory_mb is not None else 'time'}"
    )


def _tuned(kind: IndexKind, index: Any, vectors_ND: F32, queries_QD: F32, exact_QK: F32, budget: Budget) -> Choice:
    """The smallest setting with the recall; the largest where none has it."""
    lists = getattr(index, "nlist", None)
    settings = [setting for setting in SETTINGS[kind] if lists is None or setting <= lists]
    recall = 0.0
    for setting in settings:
        set_effort(index, setting)
        rows_QK = index.search(queries_QD, exact_QK.shape[1])[1]
        recall = recall_of(rows_QK, vectors_ND, queries_QD, exact_QK)
        if recall >= budget.min_recall:
            break
    times = _timed(index, queries_QD, exact_QK.shape[1])
    size = index_bytes(kind, *vectors_ND.shape) / 1e6
    return Choice(kind, setting, round(recall, 6), len(queries_QD), round(size, 1), *times)


def _timed(index: Any, queries_QD: F32, hits: int) -> tuple[float, float]:
    """Median and 95th percentile of one query's milliseconds."""
    took = []
    for number in range(min(TIMED, 10 * len(queries_QD))):
        query = queries_QD[number % len(queries_QD)][None]
        started = time.perf_counter()
        index.search(query, hits)
        took.append(1e3 * (time.perf_counter() - started))
    p50, p95 = np.quantile(took, [0.5, 0.95])
    return round(float(p50), 4), round(float(p95), 4)


def build_index(kind: IndexKind, vectors_ND: F32, *, seed: int = 0) -> Any:
    """A FAISS index of this kind by inner product; item row = position."""
    import faiss

    items, dimension = vectors_ND.shape
    lists = usual_lists(items)
    factory = {
        "flat": "Flat",
        "hnsw": f"HNSW{LINKS},Flat",
        "ivf": f"IVF{lists},Flat",
        "sq8": "SQ8",
        "ivfpq": f"IVF{lists},PQ{sub_vectors(dimension)}np",  # np: without polysemous training, which nothing here uses
    }
    index = faiss.index_factory(dimension, factory[kind], faiss.METRIC_INNER_PRODUCT)
    threads = faiss.omp_get_max_threads()
    try:
        # one thread: k-means sums in one order, and many small ones wait for each other more than they compute
        faiss.omp_set_num_threads(1)
        if not index.is_trained:
            sample = min(items, max(SAMPLE_PER_LIST * lists, 65_536))
            rows = np.sort(np.random.default_rng(seed).choice(items, sample, replace=False))
            index.train(np.ascontiguousarray(vectors_ND[rows], np.float32))
        if kind != "hnsw":  # several threads would link a graph in the order in which they happen to run
            faiss.omp_set_num_threads(threads)
        for start in range(0, items, ADD_ROWS):
            index.add(np.ascontiguousarray(vectors_ND[start : start + ADD_ROWS], np.float32))
    finally:
        faiss.omp_set_num_threads(threads)
    return index


def set_effort(index: Any, setting: int) -> None:
    """How much of it a search reads: efSearch of a graph, nprobe of lists. FAISS keeps the latter only in the file."""
    if hasattr(index, "hnsw"):
        index.hnsw.efSearch = max(1, setting)
    elif hasattr(index, "nprobe"):
        index.nprobe = max(1, setting)


def exact_scores(vectors_ND: F32, queries_QD: F32) -> F32:
    """Scores of the 10 nearest items of each query, float32 [Q, 10] (fewer where there are fewer items), descending."""
    hits = min(RECALL_AT, len(vectors_ND))
    best = np.full((len(queries_QD), hits), -np.inf, np.float32)
    for start in range(0, len(vectors_ND), ADD_ROWS):
        scores = queries_QD @ np.asarray(vectors_ND[start : start + ADD_ROWS], np.float32).T
        both = np.concatenate([best, scores], axis=1)
        best = -np.sort(np.partition(-both, hits - 1, axis=1)[:, :hits], axis=1)
    return best


def recall_of(rows_QK: I64, vectors_ND: F32, queries_QD: F32, exact_QK: F32) -> float:
    """Share of the exact nearest items that are among `rows_QK`; of several items with one score any counts.

    Args:
        rows_QK: item rows that were found; -1: fewer were. exact_QK: as `exact_scores` gives.
    """
    found_QKD = np.asarray(vectors_ND[np.maximum(rows_QK, 0).ravel()], np.float32).reshape(*rows_QK.shape, -1)
    scores_QK = np.where(rows_QK >= 0, np.einsum("qd,qkd->qk", queries_QD, found_QKD), -np.inf)
    return float((scores_QK >= exact_QK[:, -1:] - TIE).mean())


KINDS: tuple[IndexKind, ...] = get_args(IndexKind)
