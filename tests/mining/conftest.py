"""A small run in a temporary store: corpus, queries, labels and vectors, as the stages before mining leave them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.storage.store import Store
from cluster.tables.tables import F32, Part, read_part, vectors_to_column, write_part
from mining.search.block_actor import SearchTask


@dataclass(frozen=True)
class World:
    """Addresses of the tables, and what is in them."""

    store: Store
    corpus: list[Part]
    queries: list[Part]
    labels: list[Part]
    item_vectors: list[Part]
    query_vectors: list[Part]
    item_matrix: F32
    query_matrix: F32
    judged: dict[tuple[int, int], int]

    def search_task(self, folder: str, num_hits: int, **options: Any) -> SearchTask:
        return SearchTask(
            self.store,
            self.item_vectors,
            self.query_vectors,
            self.labels,
            self.corpus,
            len(self.query_matrix),
            num_hits,
            folder,
            **options,
        )


def write_table(store: Store, folder: str, table: pa.Table, rows: int) -> list[Part]:
    return [
        write_part(store, f"{folder}/part-{number:05d}.parquet", table.slice(start, rows), first_row=start)
        for number, start in enumerate(range(0, table.num_rows, rows))
    ]


def coarse(count: int, dimension: int, generator: np.random.Generator) -> F32:
    """Unit vectors of which many are equal, so that ties are common."""
    vectors = generator.integers(-1, 2, (count, dimension)).astype(np.float32)
    vectors[:, 0] += 0.5
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).astype(np.float32)


def make_world(root: Path, *, items: int = 70, queries: int = 50, dimension: int = 4, seed: int = 0) -> World:
    store, generator = Store(str(root)), np.random.default_rng(seed)
    items_ND, queries_QD = coarse(items, dimension, generator), coarse(queries, dimension, generator)
    pairs = sorted({(int(q), int(i)) for q, i in generator.integers(0, [queries, items], (3 * queries, 2))})
    judged = {pair: int(score) for pair, score in zip(pairs, generator.integers(0, 3, len(pairs)), strict=True)}
    corpus = pa.table(
        {
            "row": range(items),
            "id": [f"i{row}" for row in range(items)],
            "text_code": [row if row % 7 else 0 for row in range(items)],
            "group_code": [row // 2 if row % 5 == 0 else -1 for row in range(items)],
            "genres": [[f"g{row % 3}"] for row in range(items)],
        }
    )
    query_table = pa.table(
        {
            "row": range(queries),
            "id": [f"q{row}" for row in range(queries)],
            "item_row": [row if row % 4 == 0 and row < items else -1 for row in range(queries)],
        }
    )
    labels = pa.table({"query_row": [q for q, _ in pairs], "item_row": [i for _, i in pairs], "score": list(judged.values())})
    return World(
        store,
        write_table(store, "corpus", corpus, 40),
        write_table(store, "queries", query_table, 40),
        write_table(store, "labels", labels, 60),
        write_table(store, "items", pa.table({"row": range(items), "vector": vectors_to_column(items_ND)}), 30),
        write_table(store, "vectors", pa.table({"row": range(queries), "vector": vectors_to_column(queries_QD)}), 20),
        items_ND,
        queries_QD,
        judged,
    )


@pytest.fixture
def new_world(tmp_path: Path) -> Callable[..., World]:
    """Makes a run in the test's own folder."""
    return lambda **options: make_world(tmp_path / "run", **options)


@pytest.fixture
def slow_search() -> Callable[..., pa.Table]:
    """Searches a world one pair at a time."""
    return search_slowly


def search_slowly(world: World, num_hits: int, *, exclude_known: bool = False, also: list[list[int]] | None = None) -> pa.Table:
    """What a search writes: every product in float64, everything ranked, known items dropped on the way to the K-th."""
    groups = pa.concat_tables([read_part(world.store, part.path, ["group_code"]) for part in world.corpus])
    columns: dict[str, list[Any]] = {
        name: []
        for name in ("query_row", "also_rows", "also_scores", "item_rows", "scores", "label_rows", "label_scores", "excluded")
    }
    for query, vector in enumerate(world.query_matrix):
        products = (vector.astype(np.float64) * world.item_matrix.astype(np.float64)).sum(axis=1).astype(np.float32)
        judged = {item: score for (owner, item), score in world.judged.items() if owner == query}
        known = known_slowly(judged, groups["group_code"].to_pylist()) if exclude_known else set()
        best, left_out = [], 0
        for row in sorted(range(len(products)), key=lambda row: (-products[row], row)):
            if len(best) == num_hits:
                break
            left_out += row in known
            best += [] if row in known else [row]
        lists = {"also": also[query] if also else [], "label": list(judged)}
        for name, rows in lists.items():
            columns[f"{name}_rows"].append(rows)
            columns[f"{name}_scores"].append(products[np.array(rows, int)].tolist())
        for name, value in zip(
            ("query_row", "item_rows", "scores", "excluded"), (query, best, products[best].tolist(), left_out), strict=True
        ):
            columns[name].append(value)
    kinds = {"query_row": pa.int64(), "excluded": pa.int32()} | {
        name: pa.list_(pa.int64() if name.endswith("rows") else pa.float32())
        for name in columns
        if name not in ("query_row", "excluded")
    }
    wanted = [name for name in columns if also or not name.startswith("also")]
    return pa.table({name: pa.array(columns[name], kinds[name]) for name in wanted})


def known_slowly(judged: dict[int, int], groups: list[int]) -> set[int]:
    """Relevant items and their group mates, but for what was judged irrelevant."""
    relevant = {item for item, score in judged.items() if score > 0}
    mates = {item for item, group in enumerate(groups) if group >= 0 and group in {groups[other] for other in relevant}}
    return {item for item in relevant | mates if judged.get(item, 1) > 0}


class Stopped(Exception):  # noqa: N818  as a SIGKILL would
    """The driver ends here."""


class HereRay:
    """Ray's calls that a search uses, run at once in this process."""

    Stopped = Stopped

    def __init__(self) -> None:
        self.searches: list[tuple[int, int]] = []
        """(first row of the shard, first query of the block) of all that was searched."""
        self.asked = 0
        self.stop_before: int | None = None
        """Raise Stopped before this search, counted from 0."""

    def remote(self, made: Any) -> Any:
        return HereRemote(self, made)

    def get(self, value: Any, timeout: float | None = None) -> Any:
        return value

    def put(self, value: Any) -> Any:
        return value

    def nodes(self) -> list[dict[str, Any]]:
        """As on a cluster: the actors of each search are its own."""
        return [{"Alive": True, "Resources": {"CPU": 1}, "NodeID": name} for name in "ab"]

    def get_runtime_context(self) -> HereRay:
        """That of an actor."""
        return self

    def get_node_id(self) -> str:
        """The actors of a search are on two nodes in turn."""
        self.asked += 1
        return "ab"[self.asked % 2]

    def kill(self, actor: Any) -> None:
        """Nothing holds on to it."""

    def note(self, method: str, args: Sequence[Any]) -> None:
        if method == "search":
            if len(self.searches) == self.stop_before:
                raise Stopped
            self.searches.append((args[1].start, int(args[2].query_rows[0])))


class HereRemote:
    def __init__(self, ray: HereRay, made: Any, method: str = "") -> None:
        self._ray, self._made, self._method = ray, made, method

    def options(self, **_: Any) -> HereRemote:
        return self

    def remote(self, *args: Any) -> Any:
        self._ray.note(self._method, args)
        result = self._made(*args)
        return HereActor(self._ray, result) if isinstance(self._made, type) else result


class HereActor:
    def __init__(self, ray: HereRay, actor: Any) -> None:
        self._ray, self._actor = ray, actor

    def __getattr__(self, method: str) -> HereRemote:
        return HereRemote(self._ray, getattr(self._actor, method), method)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> HereRay:
    """Searches run their actors in this process, on its threads as they are."""
    ray = HereRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    strategies = SimpleNamespace(NodeAffinitySchedulingStrategy=lambda node, soft: node)  # everything runs here
    monkeypatch.setitem(sys.modules, "ray.util.scheduling_strategies", strategies)
    for module in ("driver", "shard_actor", "block_actor"):
        monkeypatch.setattr(f"mining.search.{module}.set_threads", lambda count: None)
    return ray
