"""Queries and labels from items: used together, anchors, titles and templates; each row says its source.

item_queries-* text u64, raw str, kind str, own str (the item that the text stands for), cut by text
labels-*       text u64, item str, grade f64, weight f64, source str, time i64, cut by text
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.storage.store import Store
from cluster.tables.tables import I64
from jobs.pairs.labels.texts import text_keys
from jobs.pairs.partitions import hashes, partition_of, read_partition, read_segments, write_partitions
from jobs.pairs.sessions.together import ITEM_SALT
from jobs.pairs.tasks import read_shared

MOST_TOGETHER = 15
"""Items that are used together with another one, at most."""
SUPPORT = 3
"""Users who used both, at least."""
DISLIKED_SHARE = 0.5
"""Share of those users who disliked the other item from which it is a negative."""
MOST_ROWS = 2_000_000
"""Rows of pairs that are added up together."""
NEIGHBOURS = 50
"""Items of the same value that are looked at for a negative."""
TOGETHER = pa.schema([("item", pa.string()), ("other", pa.string()), ("liked", pa.int64()), ("disliked", pa.int64())])
ITEM_QUERIES = pa.schema([("text", pa.uint64()), ("raw", pa.string()), ("kind", pa.string()), ("own", pa.string())])
LABELS = pa.schema(
    [
        ("text", pa.uint64()),
        ("item", pa.string()),
        ("grade", pa.float64()),
        ("weight", pa.float64()),
        ("source", pa.string()),
        ("time", pa.int64()),
    ]
)


@dataclass(frozen=True)
class FromItemsTask:
    """What all tasks need."""

    items: list[str]
    ids: tuple[str, ...]
    together: list[str]
    popularity: tuple[str, ...]
    users: int
    partitions: int
    """Of texts."""
    item_partitions: int
    diverse: bool
    negatives: bool
    anchors: bool


def pairs_from_items(store: Store, folder: str, number: int, task: FromItemsTask) -> dict[str, Any]:
    """The pairs of the items of one partition."""
    items = read_partition(store, task.items, number, task.item_partitions)
    if items is None:
        return {"objects": {}}
    texts = {item: text for item, text in zip(items["id"].to_pylist(), items["query"].to_pylist(), strict=True) if text}
    queries: list[tuple[str, str, str | None]] = []
    labels: list[tuple[str, str, float, float, str]] = []
    for item, other, grade, weight in _together(store, task, number):
        if item in texts:
            queries.append((texts[item], "co_access", item))
            labels.append((texts[item], other, grade, weight, "co_access" if grade else "disliked"))
    if task.anchors:
        for item, others in zip(items["id"].to_pylist(), items["anchors"].to_pylist(), strict=True):
            chosen = [other for other in dict.fromkeys(others or ()) if other and other != item]
            if item in texts and chosen:
                queries.append((texts[item], "anchor", item))
                labels += [(texts[item], other, 1.0, 0.7, "anchor") for other in chosen]
    stands_for = {own for _, _, own in queries}
    for text, kind, item, negatives in _synthetic(items, task.negatives):
        if kind == "title" and item in stands_for:  # there the title asks for other items
            continue
        queries.append((text, kind, None))
        labels.append((text, item, 1.0, 0.5, kind))
        labels += [(text, other, 0.0, 0.5, "same_genre") for other in negatives]
    return {"objects": _write(store, f"{folder}/{{}}-{number:05d}", queries, labels, task.partitions), "queries": len(queries)}


def _write(
    store: Store,
    path: str,
    queries: Sequence[tuple[str, str, str | None]],
    labels: Sequence[tuple[str, str, float, float, str]],
    partitions: int,
) -> dict[str, int]:
    if not queries:
        return {}
    raw, kinds, own = zip(*dict.fromkeys(queries), strict=True)
    _, keys = text_keys(pa.array(raw, pa.string()))
    table = pa.table([pa.array(keys), pa.array(raw), pa.array(kinds), pa.array(own, pa.string())], schema=ITEM_QUERIES)
    texts, items, grades, weights, sources = zip(*labels, strict=True)
    _, of_labels = text_keys(pa.array(texts, pa.string()))
    zeros = np.zeros(len(texts), np.int64)
    columns = [pa.array(of_labels), pa.array(items), pa.array(grades), pa.array(weights), pa.array(sources), pa.array(zeros)]
    rows = pa.table(columns, schema=LABELS)
    objects = write_partitions(store, path.format("item_queries"), table, partition_of(keys, partitions), partitions)
    return objects | write_partitions(store, path.format("labels"), rows, partition_of(of_labels, partitions), partitions)


def _together(store: Store, task: FromItemsTask, number: int) -> list[tuple[str, str, float, float]]:
    """(item, other, 1.0 or 0.0, weight) of the items of this partition.

    Positives: by normalised pointwise mutual information, which is between −1 and 1 however popular the two are; with `different`
    set, the best one of each of its values comes before the second of any. Negatives: what most who liked the item disliked.
    """
    table = _added(read_segments(store, task.together, number, task.item_partitions))
    if table is None:
        return []
    table = table.filter(pc.not_equal(table["item"], table["other"]))
    liked, disliked = table["liked"].to_numpy(), table["disliked"].to_numpy()
    both = liked + disliked
    enough = both >= SUPPORT
    table, liked, disliked, both = table.filter(pa.array(enough)), liked[enough], disliked[enough], both[enough]
    left, right = hashes(table["item"], ITEM_SALT), hashes(table["other"], ITEM_SALT)
    ids = read_shared(store, task.ids, ["item", "group"])
    known, groups = ids["item"].to_numpy(), ids["group"].to_numpy()
    slot = np.minimum(np.searchsorted(known, right), max(0, len(known) - 1))
    in_corpus = known[slot] == right
    bad = disliked >= np.maximum(SUPPORT, DISLIKED_SHARE * both)
    count, of = _likers(store, task.popularity, left), _likers(store, task.popularity, right)
    users = max(2, task.users)
    share = np.minimum(liked, users - 1) / users
    with np.errstate(divide="ignore", invalid="ignore"):
        npmi = np.where(liked > 0, np.log(liked * users / (count * of)) / -np.log(share), -1.0)
    good = ~bad & (liked >= SUPPORT) & (npmi > 0) & in_corpus
    order = np.lexsort((right, -np.round(npmi, 9), left))
    chosen = _first(order[good[order]], left, groups[slot] if task.diverse else None)
    out = order[bad[order] & in_corpus[order]]
    rows = np.concatenate([chosen, out])
    names = table.select(["item", "other"]).take(pa.array(rows))
    weight = np.where(bad[rows], 0.7, np.round(np.minimum(1.0, npmi[rows]), 4)).tolist()
    return list(
        zip(names["item"].to_pylist(), names["other"].to_pylist(), (~bad[rows]).astype(float).tolist(), weight, strict=True)
    )


def _added(parts: Iterable[pa.Table]) -> pa.Table | None:
    """The sums of each pair, added up whenever MOST_ROWS more have come."""
    waiting: list[pa.Table] = []
    total: pa.Table | None = None

    def add() -> pa.Table:
        tables = [table for table in (total, *waiting) if table is not None]
        grouped = pa.concat_tables(tables).group_by(["item", "other"], use_threads=False)
        return grouped.aggregate([("liked", "sum"), ("disliked", "sum")]).rename_columns(["item", "other", "liked", "disliked"])

    for part in parts:
        waiting.append(part.cast(TOGETHER))
        if sum(table.num_rows for table in waiting) > MOST_ROWS:
            total, waiting = add(), []
    return add() if waiting else total


def _first(order: I64, left: Any, groups: Any) -> I64:
    """The first MOST_TOGETHER rows of each item; with groups, the first of each group before the second of any."""
    if not len(order):
        return order
    if groups is not None:
        by_group = order[np.lexsort((np.arange(len(order)), groups[order], left[order]))]
        start = np.append(True, (left[by_group][1:] != left[by_group][:-1]) | (groups[by_group][1:] != groups[by_group][:-1]))
        begins = np.maximum.accumulate(np.where(start, np.arange(len(by_group)), 0))
        turn = np.zeros(int(order.max()) + 1, np.int64)
        turn[by_group] = np.arange(len(by_group)) - begins
        order = order[np.lexsort((np.arange(len(order)), turn[order], left[order]))]
    start = np.append(True, left[order][1:] != left[order][:-1])
    begins = np.maximum.accumulate(np.where(start, np.arange(len(order)), 0))
    first: I64 = order[np.arange(len(order)) - begins < MOST_TOGETHER]
    return first


def _synthetic(items: pa.Table, negatives: bool) -> Any:
    """(text, kind, item, negatives) of titles and templates. A negative shares `same`, and nothing of `different`."""
    rows = items.select(["id", "query", "templates", "same", "different"]).to_pylist()
    by_same: dict[str, list[int]] = {}
    place = [0] * len(rows)
    if negatives:
        for number, row in enumerate(rows):
            if row["same"]:
                alike = by_same.setdefault(row["same"], [])
                place[number] = len(alike)
                alike.append(number)
    for number, row in enumerate(rows):
        if row["query"]:
            yield row["query"], "title", row["id"], []
        for text in row["templates"]:
            alike = by_same.get(row["same"] or "", [])
            following = range(place[number] + 1, place[number] + min(len(alike), NEIGHBOURS + 1))
            others = [rows[alike[other % len(alike)]] for other in following]
            mine = set((row["different"] or "").split(" | "))
            wrong = [other["id"] for other in others if other["different"] and mine.isdisjoint(other["different"].split(" | "))]
            yield text, "template", row["id"], wrong[:3]


def _likers(store: Store, paths: tuple[str, ...], keys: Any) -> Any:
    """[N] users who liked each item, at least 1."""
    table = read_shared(store, paths, ["item", "likers"])
    item, likers = table["item"].to_numpy(), table["likers"].to_numpy()
    slot = np.minimum(np.searchsorted(item, keys), max(0, len(item) - 1))
    return np.maximum(1, np.where(item[slot] == keys, likers[slot], 1)) if len(item) else np.ones(len(keys))
