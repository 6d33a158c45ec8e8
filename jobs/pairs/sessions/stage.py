"""The stage of sessions: each task takes the rows of some clients and writes what was seen, cut by query text. No user leaves it.

seen-*     text u64, item str, period i8, position i16, a count for each of COUNTED, cut by text
asked-*    text u64, raw str, period i8, split str, kind str (null: live), and counts
labels-*   text u64, item str, grade f64, weight f64, source str, time i64 (of an earlier output), cut by text
together-* item str, other str, liked i32, disliked i32, cut by item
items-*    item u64, clicks i64, likers i64, cut by item
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.storage.store import Store
from cluster.tables.tables import I64
from jobs.pairs.labels.texts import text_keys
from jobs.pairs.partitions import PartitionWriter, hashes, partition_of, read_segments, write_partitions
from jobs.pairs.reading.rows import EARLIER_TEXT, LABEL, MOST_SHOWN, QUERY
from jobs.pairs.sessions.joined import U64, Joined, join
from jobs.pairs.sessions.rules import Evidence, apply_rules
from jobs.pairs.sessions.together import ITEM_SALT, used_together
from jobs.pairs.settings import SignalSettings
from jobs.pairs.tasks import read_object

EXPLICIT = ("cart", "purchase", "wishlist", "thumbs_up", "thumbs_down", "citation", "deletion")
COUNTED = ("shown", "click", "dwell", "quick_return", "skipped", "reformulated", "not_cited", *EXPLICIT)
"""What is counted for a text, an item and a position."""
DAY = 86_400_000
MOST_ROWS = 20_000
"""Rows of one client that are looked at: who has more is a bot, or a name that many share, and must fit the memory."""


@dataclass(frozen=True)
class SessionTask:
    """What all tasks need."""

    rows: list[str]
    variants: str
    """Object with the map of spelling variants."""
    partitions: int
    item_partitions: int
    cuts: tuple[int, int]
    """Times (ms) from which a query is of dev's and of test's part of the log; 0: the log is not cut by time."""
    signals: SignalSettings
    bot_queries: int
    below: float | None
    window: int
    """0: nobody asks for items that are used together."""


def count_sessions(store: Store, folder: str, number: int, task: SessionTask) -> dict[str, Any]:
    """Join, apply the rules, and write what was seen in one partition of clients."""
    table, flooded = _rows(store, task, number)
    if table is None:
        return {"objects": {}}
    joined = join(table, task.bot_queries)
    joined.counts[f"rows of a client above {MOST_ROWS:,}"] += flooded
    joined.key = _meant(store, task.variants, joined.key)
    evidence = apply_rules(joined, task.signals)
    period = (
        np.searchsorted(np.asarray(task.cuts), joined.time, side="right") if task.cuts[0] else np.zeros(len(joined.time), int)
    )
    path, count = f"{folder}/{{}}-{number:05d}", task.partitions
    objects: dict[str, int] = {}
    tables = {
        "seen": _seen(joined, evidence, period),
        "asked": pa.concat_tables([_asked(joined, evidence, period, task.below), _asked_before(store, task, table)]),
        "labels": _labels(store, task, table),
    }
    for kind, of_texts in tables.items():
        keys = of_texts["text"].to_numpy()
        objects |= write_partitions(store, path.format(kind), of_texts, partition_of(keys, count), count)
    del tables
    likers, users = pa.table({"item": pa.array([], pa.uint64()), "likers": pa.array([], pa.int64())}), 0
    if task.window:
        every, likers, users = used_together(table, task.window)
        together = PartitionWriter(store, path.format("together"), task.item_partitions)
        for pairs in every:
            together.add(pairs, partition_of(hashes(pairs["item"], ITEM_SALT), task.item_partitions))
        objects |= together.close()
    items, count = _items(joined, evidence, likers), task.item_partitions
    objects |= write_partitions(store, path.format("items"), items, partition_of(items["item"].to_numpy(), count), count)
    at_position = _positions(joined, evidence, period)
    used = Counter({name: int(joined.did[name].sum()) for name in joined.did})
    used["dwell"] = int(evidence.dwell.sum())
    used.update({"skipped": int(evidence.skipped.sum()), "quick_return": int(evidence.quick_return.sum())})
    used.update({"reformulated": int(evidence.reformulated.sum()), "not_cited": int(evidence.not_cited.sum())})
    return {
        "objects": objects,
        "queries": len(joined.query),
        "users": users,
        "clients": len(np.unique(joined.client[joined.client != 0])),
        "skipped": {reason: number for reason, number in joined.counts.items() if number},
        "signals": dict(used),
        "shown_at": at_position[0].tolist(),
        "clicked_at": at_position[1].tolist(),
        "days": _days(joined, evidence),
        "newest": int(joined.time.max(initial=0)),
        "oldest": int(joined.time[joined.time > 0].min(initial=2**62)),
    }


def _rows(store: Store, task: SessionTask, number: int) -> tuple[pa.Table | None, int]:
    """(the rows of the partition, how many of them were left out): a client has MOST_ROWS at most, the first ones."""
    kept: list[pa.Table] = []
    before: Counter[int] = Counter()
    flooded = 0
    for part in read_segments(store, task.rows, number, task.partitions):
        client = part["client"].to_numpy()
        clients, inverse, counts = np.unique(client, return_inverse=True, return_counts=True)
        had = np.asarray([before[one] for one in clients.tolist()], np.int64)
        before.update(dict(zip(clients.tolist(), counts.tolist(), strict=True)))
        if ((had + counts > MOST_ROWS) & (clients != 0)).any():
            within = np.empty(len(client), np.int64)
            within[np.argsort(inverse, kind="stable")] = np.arange(len(client)) - np.repeat(np.cumsum(counts) - counts, counts)
            few = (client == 0) | (had[inverse] + within < MOST_ROWS)
            flooded += int((~few).sum())
            kept.append(part.filter(pa.array(few)))
        else:
            kept.append(part)
    return (pa.concat_tables(kept) if kept else None), flooded


def _meant(store: Store, path: str, keys: U64) -> U64:
    """The key of the text that was meant, for each key."""
    table = read_object(store, path)
    rare, meant = table["rare"].to_numpy(), table["meant"].to_numpy()
    if not len(rare):
        return keys
    slot = np.minimum(np.searchsorted(rare, keys), len(rare) - 1)
    changed: U64 = np.where(rare[slot] == keys, meant[slot], keys)
    return changed


def _seen(joined: Joined, evidence: Evidence, period: I64) -> pa.Table:
    text, key = np.unique(joined.key, return_inverse=True)
    items = max(1, len(joined.items))
    pairs = ((key[joined.pair_query] * items + joined.pair_item) * 3 + period[joined.pair_query]) * (MOST_SHOWN + 1)
    groups, inverse = np.unique(pairs + joined.position, return_inverse=True)
    flags = {
        "shown": joined.shown,
        "click": evidence.used & ~evidence.quick_return,
        "dwell": evidence.dwell,
        "quick_return": evidence.quick_return,
        "skipped": evidence.skipped,
        "reformulated": evidence.reformulated,
        "not_cited": evidence.not_cited,
    } | {name: joined.did[name] for name in EXPLICIT}
    rest, position = np.divmod(groups, MOST_SHOWN + 1)
    rest, of_period = np.divmod(rest, 3)
    of_text, item = np.divmod(rest, items)
    counts = {name: np.bincount(inverse, weights=flags[name], minlength=len(groups)).astype(np.int32) for name in COUNTED}
    return pa.table(
        {
            "text": text[of_text] if len(text) else np.zeros(0, np.uint64),
            "item": joined.items.take(pa.array(item)).cast(pa.string()),
            "period": of_period.astype(np.int8),
            "position": position.astype(np.int16),
        }
        | counts
    )


def _asked(joined: Joined, evidence: Evidence, period: I64, below: float | None) -> pa.Table:
    encoded = joined.text.dictionary_encode()
    raw = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    of_key = np.unique(joined.key, return_inverse=True)[1]
    groups, first, inverse = np.unique(
        (of_key * max(1, len(encoded.dictionary)) + raw) * 3 + period, return_index=True, return_inverse=True
    )
    with np.errstate(invalid="ignore"):
        low = joined.score < below if below is not None else np.zeros(len(raw), bool)
    showed = np.zeros(len(raw), bool)
    showed[joined.pair_query[joined.shown]] = True
    never = np.iinfo(np.int64).max
    oldest, newest = np.full(len(groups), never), np.zeros(len(groups), np.int64)
    np.minimum.at(oldest, inverse, np.where(joined.time > 0, joined.time, never))
    np.maximum.at(newest, inverse, joined.time)

    def count(flags: Any) -> Any:
        return np.bincount(inverse, weights=flags, minlength=len(groups)).astype(np.int64)

    return pa.table(
        {
            "text": joined.key[first] if len(first) else np.zeros(0, np.uint64),
            "raw": joined.text.take(pa.array(first)),
            "period": period[first].astype(np.int8),
            "split": pa.nulls(len(groups), pa.string()),
            "kind": pa.nulls(len(groups), pa.string()),
            "count": count(~joined.failed),
            "first": np.where(oldest == never, 0, oldest),
            "last": newest,
            "shown": count(showed),
            "without_click": count(evidence.query_without_click),
            "reformulated": count(evidence.query_reformulated),
            "low": count(low),
            "failed": count(joined.failed),
        }
    )


def _asked_before(store: Store, task: SessionTask, table: pa.Table) -> pa.Table:
    """Queries of an earlier output, with their split, which they keep; and texts of labels that have one."""
    named = pc.or_(pc.equal(table["position"], EARLIER_TEXT), pc.and_(pc.equal(table["kind"], LABEL), pc.is_valid(table["text"])))
    rows = table.filter(pc.and_(named, pc.is_valid(table["text"])))
    keys = _meant(store, task.variants, text_keys(rows["text"])[1])
    zeros = np.zeros(rows.num_rows, np.int64)
    earlier = pc.equal(rows["kind"], QUERY)
    split = pc.if_else(earlier, rows["source"], pa.scalar(None, pa.string()))
    kind = pc.if_else(earlier, rows["item"], "editorial")  # an earlier query says there what kind it was
    names = ("count", "first", "last", "shown", "without_click", "reformulated", "low", "failed")
    columns = {"text": keys, "raw": rows["text"], "period": zeros.astype(np.int8), "split": split, "kind": kind}
    repeated = pa.table(columns | dict.fromkeys(names, zeros))
    grouped = repeated.group_by(list(columns), use_threads=False).aggregate([(name, "sum") for name in names])
    return grouped.rename_columns([*columns, *names])


def _labels(store: Store, task: SessionTask, table: pa.Table) -> pa.Table:
    rows = table.filter(pc.equal(table["kind"], LABEL))
    named = table.filter(pc.and_(pc.equal(table["kind"], QUERY), pc.equal(table["position"], EARLIER_TEXT)))
    named = named.sort_by("query")
    query, known = rows["query"].to_numpy(), named["query"].to_numpy()
    slot = np.minimum(np.searchsorted(known, query), max(0, len(known) - 1))
    texts = rows["text"]
    if len(known):
        joined = pc.if_else(pa.array(known[slot] == query), named["text"].take(pa.array(slot)), pa.scalar(None, pa.string()))
        texts = pc.coalesce(texts, joined)
    rows = rows.set_column(rows.column_names.index("text"), "raw", texts).filter(pc.is_valid(texts))
    keys = _meant(store, task.variants, text_keys(rows["raw"])[1])
    return pa.table(
        {
            "text": keys,
            "item": rows["item"],
            "grade": rows["value"],
            "weight": pc.fill_null(rows["weight"], 1.0),
            "source": rows["source"],
            "time": rows["time"],
        }
    )


def _items(joined: Joined, evidence: Evidence, liked: pa.Table) -> pa.Table:
    keys = hashes(joined.items, ITEM_SALT)
    clicks = np.bincount(joined.pair_item, weights=evidence.used, minlength=len(keys)).astype(np.int64)
    used = pa.table({"item": keys, "clicks": clicks, "likers": np.zeros(len(keys), np.int64)})
    return pa.concat_tables([used, liked.add_column(1, "clicks", pa.array(np.zeros(liked.num_rows, np.int64)))])


def _positions(joined: Joined, evidence: Evidence, period: I64) -> tuple[I64, I64]:
    """(times shown, times used) at each position in the part of the log that is trained on; 0: position unknown."""
    train = joined.shown & (period[joined.pair_query] == 0)
    shown = np.bincount(joined.position[train], minlength=MOST_SHOWN + 1)
    used = np.bincount(joined.position[train & evidence.used], minlength=MOST_SHOWN + 1)
    return shown, used


def _days(joined: Joined, evidence: Evidence) -> dict[str, list[int]]:
    """Day (since 1970) -> queries, and those with a click."""
    with_use = np.zeros(len(joined.query), bool)
    with_use[joined.pair_query[evidence.used]] = True
    timed = joined.time > 0
    days, inverse = np.unique(joined.time[timed] // DAY, return_inverse=True)
    clicks = np.bincount(inverse, weights=with_use[timed], minlength=len(days)).astype(int)
    return {
        str(day): [int(all_), int(some)]
        for day, all_, some in zip(days, np.bincount(inverse, minlength=len(days)), clicks, strict=True)
    }
