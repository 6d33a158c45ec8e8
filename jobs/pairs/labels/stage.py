"""The stage of labels: each task takes the texts of one partition and writes their queries, labels and rejected queries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.storage.store import Store
from cluster.tables.tables import I64, part_name, write_part
from jobs.pairs.corpus.synthetic import in_bins
from jobs.pairs.labels.asked import SYNTHETIC, Asked, read_asked
from jobs.pairs.labels.evidence import Evidence, Positions, evidence, joined_evidence, resolve
from jobs.pairs.labels.splits import SPLITS
from jobs.pairs.labels.texts import U64, query_id
from jobs.pairs.partitions import hashes, read_partition
from jobs.pairs.sessions.stage import COUNTED
from jobs.pairs.sessions.together import ITEM_SALT
from jobs.pairs.tasks import read_shared, write_object

DAY = 86_400_000
HALF_LIFE_DAYS = 180.0
"""Days in which labels of an earlier output lose half of their weight."""
POPULAR_SHARE, MOST_POPULAR = 0.01, 10.0
"""Share of all clicks, and times the average item's, above which an item's labels weigh less, in proportion."""


@dataclass(frozen=True)
class LabelTask:
    """What all tasks need."""

    objects: Mapping[str, list[str]]
    """Kind -> objects of the stages before: seen, asked, labels."""
    positions: tuple[tuple[float, ...], tuple[float, ...]]
    """Expected clicks and weight of a click at each position."""
    weights: Mapping[str, float]
    popularity: tuple[str, ...]
    partitions: int
    known_items: tuple[str, ...]
    """Objects with the ids of the corpus; empty: any item may be labelled."""
    held_out: float
    cuts: tuple[int, int]
    rejected_words: tuple[str, ...]
    clicks: bool
    """Whether anybody clicked anything in this log."""
    newest: int


def label_texts(store: Store, folder: str, number: int, task: LabelTask) -> dict[str, Any]:
    """The labels of one partition of texts, in `tables/`; synthetic ones and rejected queries as objects."""
    asked = read_asked(store, task.objects, number, task.partitions, task.held_out, task.cuts)
    if asked is None:
        return {"objects": {}}
    counts: Counter[str] = Counter()
    pairs, pieces, sources = _evidence(store, task, number, asked, counts)
    resolved = resolve(pieces)
    text, item = pairs["text"].take(pa.array(resolved.pair)), pairs["item"].take(pa.array(resolved.pair))
    row = np.searchsorted(asked.key, text.to_numpy())
    item_key = hashes(item, ITEM_SALT)
    share, average = _popularity(store, task.popularity, item_key)
    with np.errstate(divide="ignore"):
        factor = np.where(
            resolved.score > 0, np.minimum(1.0, max(POPULAR_SHARE, MOST_POPULAR * average) / np.maximum(share, 1e-12)), 1.0
        )
    known = _known(store, task.known_items, item_key)
    counts["label of an item that the corpus does not have"] += int((~known).sum())
    has_positive = np.zeros(len(asked.key), bool)
    has_positive[row[known & (resolved.score > 0)]] = True
    counts["label of a query without a relevant item"] += int((known & ~has_positive[row]).sum())
    kept = known & has_positive[row]
    capped = int((factor[kept] < 1).sum())
    labels = pa.table(
        {
            "query_id": [query_id(key) for key in asked.key[row[kept]].tolist()],
            "item_id": item.filter(pa.array(kept)),
            "score": resolved.score[kept],
            "weight": np.round(resolved.weight[kept] * factor[kept], 4),
            "source": pa.array(sources, pa.string()).take(pa.array(resolved.source[kept])),
            "split": pa.array(SPLITS).take(pa.array(asked.split[row[kept]])),
        }
    ).sort_by([("query_id", "ascending"), ("item_id", "ascending")])
    queries = _queries(asked, has_positive)
    figures = _figures(labels, queries, resolved.conflicts, resolved.several, capped, counts)
    objects = _write(store, folder, number, queries, labels)
    refused = asked.rejected(task.rejected_words, has_positive, task.clicks)
    objects |= write_object(store, f"{folder}/refused-{number:05d}.parquet", refused)
    bins = in_bins(asked.key[has_positive & np.asarray(pc.is_in(asked.kind, value_set=pa.array(SYNTHETIC)))])
    return figures | {"objects": objects, "refused": refused.num_rows, "synthetic_bins": bins}


def _write(store: Store, folder: str, number: int, queries: pa.Table, labels: pa.Table) -> dict[str, int]:
    """The tables of the run now; what is synthetic later, when its share is known."""
    synthetic = pc.is_in(queries["kind"], value_set=pa.array(SYNTHETIC))
    of_synthetic = pc.is_in(labels["query_id"], value_set=queries["id"].filter(synthetic))
    objects: dict[str, int] = {}
    for name, table, chosen in (("queries", queries, synthetic), ("qrels", labels, of_synthetic)):
        real = table.filter(pc.invert(chosen))
        if real.num_rows:
            part = write_part(store, f"tables/{name}/{part_name(number)}", real, for_others=True)
            objects[part.path] = part.bytes
        objects |= write_object(store, f"{folder}/synthetic_{name}-{number:05d}.parquet", table.filter(chosen))
    return objects


def _evidence(
    store: Store, task: LabelTask, number: int, asked: Asked, counts: Counter[str]
) -> tuple[pa.Table, Evidence, list[str]]:
    """(text and item of each pair, what is known about them, names of the sources)."""
    seen = read_partition(store, task.objects["seen"], number, task.partitions)
    labels = read_partition(store, task.objects["labels"], number, task.partitions)
    columns = [table.select(["text", "item"]) for table in (seen, labels) if table is not None]
    every = (
        pa.concat_tables(columns) if columns else pa.table({"text": pa.array([], pa.uint64()), "item": pa.array([], pa.string())})
    )
    encoded = every["item"].combine_chunks().dictionary_encode()
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    row = np.searchsorted(asked.key, every["text"].to_numpy())
    many = max(1, len(encoded.dictionary))
    codes = row * many + encoded.indices.to_numpy(zero_copy_only=False)
    first = len(seen) if seen is not None else 0
    late = np.zeros(first, bool)
    if seen is not None:
        after = seen["period"].to_numpy() > 0
        training = asked.split[row[:first]] == 0
        has_later = np.zeros(len(asked.key), bool)
        has_later[row[:first][after]] = True
        late = np.where(training, after, ~after & has_later[row[:first]])
        times = seen["shown"].to_numpy() + seen["click"].to_numpy()
        counts["shown or used for a training query after the cut of time"] += int(times[late & training].sum())
        counts["shown or used for a held-out query before the cut of time"] += int(times[late & ~training].sum())
    pairs, inverse = np.unique(codes, return_inverse=True)
    table = pa.table(
        {"text": asked.key[pairs // many], "item": encoded.dictionary.take(pa.array(pairs % many)).cast(pa.string())}
    )
    sources: list[str] = []
    pieces = []
    if seen is not None:
        pieces.append(_counted(seen.filter(pa.array(~late)), inverse[:first][~late], len(pairs), task, sources))
    if labels is not None:
        pieces.append(_labelled(labels, inverse[first:], task, sources))
    return table, joined_evidence([(one.pair, one.grade, one.weight, one.source) for one in pieces]), sources


def _counted(seen: pa.Table, pair: I64, pairs: int, task: LabelTask, sources: list[str]) -> Evidence:
    at = Positions(np.asarray(task.positions[0]), np.asarray(task.positions[1]))
    position = seen["position"].to_numpy()
    shown, clicks = seen["shown"].to_numpy(), seen["click"].to_numpy()
    sums = {name: np.bincount(pair, weights=seen[name].to_numpy(), minlength=pairs) for name in COUNTED}
    # whole numbers times a rate of the position, summed in the order of the positions: the same in every order of the files
    expected, weighted = np.zeros(pairs), np.zeros(pairs)
    for one in np.unique(position).tolist():
        there = position == one
        expected += at.expected[one] * np.bincount(pair[there], weights=shown[there], minlength=pairs)
        weighted += at.weight[one] * np.bincount(pair[there], weights=clicks[there], minlength=pairs)
    return evidence(sums, expected, weighted, task.weights, sources)


def _labelled(labels: pa.Table, pair: I64, task: LabelTask, sources: list[str]) -> Evidence:
    """Labels of editors, of items and of earlier outputs; the latter lose weight with their age."""
    time = labels["time"].to_numpy()
    age = np.where(time > 0, np.maximum(0, task.newest - time) / DAY, 0.0)
    weight = labels["weight"].to_numpy() * 0.5 ** (age / HALF_LIFE_DAYS)
    names = pc.fill_null(labels["source"], "editorial").combine_chunks().dictionary_encode()
    names = names.combine_chunks() if isinstance(names, pa.ChunkedArray) else names
    for name in sorted(names.dictionary.to_pylist()):
        if name not in sources:
            sources.append(name)
    places = np.asarray([sources.index(name) for name in names.dictionary.to_pylist()], np.int64)
    return Evidence(pair, labels["grade"].to_numpy(), weight, places[names.indices.to_numpy(zero_copy_only=False)])


def _queries(asked: Asked, has_positive: Any) -> pa.Table:
    rows = np.flatnonzero(has_positive)
    return pa.table(
        {
            "id": [query_id(key) for key in asked.key[rows].tolist()],
            "text": asked.text.take(pa.array(rows)),
            "split": pa.array(SPLITS).take(pa.array(asked.split[rows])),
            "kind": asked.kind.take(pa.array(rows)),
            "item_id": asked.own.take(pa.array(rows)),
            "count": asked.count[rows],
        }
    ).sort_by("id")


def _figures(
    labels: pa.Table, queries: pa.Table, conflicts: Mapping[str, int], several: int, capped: int, counts: Counter[str]
) -> dict[str, Any]:
    def by(table: pa.Table, *names: str) -> dict[str, int]:
        grouped = table.group_by(list(names), use_threads=False).aggregate([([], "count_all")])
        keys = zip(*(grouped[name].to_pylist() for name in names), strict=True)
        return {" ".join(map(str, key)): count for key, count in zip(keys, grouped["count_all"].to_pylist(), strict=True)}

    synthetic = queries["id"].filter(pc.is_in(queries["kind"], value_set=pa.array(SYNTHETIC)))
    labels = labels.filter(
        pc.invert(pc.is_in(labels["query_id"], value_set=synthetic))
    )  # synthetic ones are counted when they are kept
    good = labels.filter(pc.greater(labels["score"], 0))
    thick = by(good, "query_id").values()
    usable = pc.equal(good["split"], "train")
    return {
        "train_relevant": int(pc.sum(usable).as_py() or 0),
        "labels_by_source": by(labels, "source"),
        "labels_by_score": by(labels, "score"),
        "queries_by": by(queries, "kind", "split"),
        "relevant_per_query": dict(Counter(str(min(5, number)) for number in thick)),
        "conflicts": dict(conflicts),
        "left_out": dict(counts),
        "totals": {"pairs of several sources": several, "labels of popular items, capped": capped},
    }


def _known(store: Store, paths: tuple[str, ...], keys: U64) -> Any:
    """[L] whether the corpus has the item; without a corpus it has all."""
    if not paths:
        return np.ones(len(keys), bool)
    item = read_shared(store, paths, ["item"])["item"].to_numpy()
    return item[np.minimum(np.searchsorted(item, keys), len(item) - 1)] == keys


def _popularity(store: Store, paths: tuple[str, ...], keys: U64) -> tuple[Any, float]:
    """([L] share of all clicks, the average item's share)."""
    if not paths:
        return np.zeros(len(keys)), 1.0
    table = read_shared(store, paths, ["item", "clicks"])
    item, clicks = table["item"].to_numpy(), table["clicks"].to_numpy()
    slot = np.minimum(np.searchsorted(item, keys), len(item) - 1)
    return np.where(item[slot] == keys, clicks[slot], 0) / max(1, int(clicks.sum())), 1 / len(item)
