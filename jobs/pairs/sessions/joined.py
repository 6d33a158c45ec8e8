"""The rows of one partition as arrays: queries, what each showed, and what was done with it. Bots and repetitions are out.

Q queries, P pairs of a query and an item.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cluster.tables.tables import I64
from jobs.pairs.labels.texts import text_keys
from jobs.pairs.reading.rows import EARLIER_TEXT, EVENT, FAILED, MOST_SHOWN, NOBODY, OF_EVENT, QUERY, mixed
from jobs.pairs.signals import ACTIONS, CODES

U64 = npt.NDArray[np.uint64]
Bool = npt.NDArray[np.bool_]
UNKNOWN = "no query with that query_id and the same client_id is in the log"
REPEATS = 5
"""Times that one client's asking of one text counts."""
DAY = 86_400_000
SCRAPER_QUERIES = 100
"""Queries without any click from which a client is a scraper, where others click."""
CLICKER_SHOWN, CLICKER_RATE = 200, 0.6
"""Results shown, and the share of them clicked, from which a client is no person."""


@dataclass
class Joined:
    """Queries and their pairs."""

    query: U64
    """[Q] hashes, ascending."""
    client: U64
    session: U64
    time: I64
    score: npt.NDArray[np.float64]
    failed: Bool
    """[Q] an evaluation found nothing relevant for it."""
    key: U64
    """[Q] of the text."""
    text: pa.Array
    """[Q] as it was written."""
    items: pa.Array
    """Distinct ids of items."""
    pair_query: I64
    """[P] ascending with pair_item."""
    pair_item: I64
    position: I64
    """[P] 0: unknown."""
    shown: Bool
    did: dict[str, Bool] = field(default_factory=dict)
    """Action -> [P]"""
    dwell: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """[P] seconds; NaN: not known."""
    clicked_at: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    """[P] time of the first click; 0: not known."""
    counts: Counter[str] = field(default_factory=Counter)
    """What was left out."""


def join(table: pa.Table, bot_queries: int) -> Joined:
    """The queries and pairs of a partition."""
    counts: Counter[str] = Counter()
    asked = table.filter(pc.and_(pc.equal(table["kind"], QUERY), pc.not_equal(table["position"], EARLIER_TEXT)))
    events = table.filter(pc.and_(pc.equal(table["kind"], EVENT), pc.not_equal(table["query"], NOBODY)))
    asked, events = _without_bots(_unique(_of_client(asked), counts), _of_client(events), bot_queries, counts)
    query, wanted = asked["query"].to_numpy(), events["query"].to_numpy()
    row = np.minimum(np.searchsorted(query, wanted), max(0, len(query) - 1))
    known = query[row] == wanted if len(query) else np.zeros(len(wanted), bool)
    counts[f"event without its query: {UNKNOWN}"] += int((~known).sum())
    row, events = row[known], events.filter(pa.array(known))
    joined = _pairs(asked, events, row, counts)
    return joined


def _of_client(table: pa.Table) -> pa.Table:
    """The rows with ids of queries that are ids of one client's: many systems count from 1 for each of them."""
    own = mixed(table["query"].to_numpy(), table["client"].to_numpy())
    return table.set_column(table.column_names.index("query"), "query", pa.array(own))


def _unique(asked: pa.Table, counts: Counter[str]) -> pa.Table:
    """One row for each query: the first in time that says what was shown."""
    hidden = pc.is_null(asked["shown"]).cast(pa.int8())
    asked = asked.append_column("hidden", hidden)
    order = pc.sort_indices(
        asked.drop(["shown"]), sort_keys=[("query", "ascending"), ("hidden", "ascending"), ("time", "ascending")]
    )
    asked = asked.take(order)
    query = asked["query"].to_numpy()
    first = np.concatenate([[True], query[1:] != query[:-1]]) if len(query) else np.zeros(0, bool)
    logged = asked["position"].to_numpy() != OF_EVENT
    counts["query rows with an id that was there before"] += int((~first & logged).sum())
    kept = asked.filter(pa.array(first))
    keys = text_keys(kept["text"])[1]
    kept = kept.append_column("key", pa.array(keys))
    # one client that asks the same again and again counts a few times
    order = np.lexsort((kept["query"].to_numpy(), kept["time"].to_numpy(), keys, kept["client"].to_numpy()))
    client, key = kept["client"].to_numpy()[order], keys[order]
    start = np.concatenate([[True], (client[1:] != client[:-1]) | (key[1:] != key[:-1])]) if len(order) else np.zeros(0, bool)
    begins = np.maximum.accumulate(np.where(start, np.arange(len(order)), 0)) if len(order) else np.zeros(0, np.int64)
    often = np.zeros(len(order), bool)
    often[order] = (np.arange(len(order)) - begins >= REPEATS) & (client != 0)
    counts[f"query that its client asked more than {REPEATS} times"] += int(often.sum())
    return kept.filter(pa.array(~often))


def _without_bots(asked: pa.Table, events: pa.Table, most: int, counts: Counter[str]) -> tuple[pa.Table, pa.Table]:
    if not most:
        return asked, events
    client, time = asked["client"].to_numpy(), asked["time"].to_numpy()
    timed = time > 0  # without times nobody knows how many queries were asked in a day
    days, number = np.unique(np.stack([client, (time // DAY).astype(np.uint64)])[:, timed], axis=1, return_counts=True)
    bots = set(days[0][number > most].tolist())
    clients, queries = np.unique(client, return_counts=True)
    clicks = events.filter(pc.equal(events["action"], CODES["click"]))["client"].to_numpy()
    clicked = np.bincount(np.searchsorted(clients, clicks[np.isin(clicks, clients)]), minlength=len(clients))
    lengths = pc.fill_null(pc.list_value_length(asked["shown"]), 0).to_numpy()
    shown = np.bincount(np.searchsorted(clients, client), weights=lengths, minlength=len(clients))
    if clicked.sum():
        bots |= set(clients[(queries >= SCRAPER_QUERIES) & (clicked == 0) & (shown > 0)].tolist())
        bots |= set(clients[(shown >= CLICKER_SHOWN) & (clicked > CLICKER_RATE * np.maximum(shown, 1))].tolist())
    bots.discard(0)
    counts["clients that are bots"] += len(bots)
    if not bots:
        return asked, events
    values = np.asarray(sorted(bots), np.uint64)
    out, gone = np.isin(client, values), np.isin(events["client"].to_numpy(), values)
    counts["query of a bot"] += int(out.sum())
    counts["event of a bot"] += int(gone.sum())
    return asked.filter(pa.array(~out)), events.filter(pa.array(~gone))


def _pairs(asked: pa.Table, events: pa.Table, row: I64, counts: Counter[str]) -> Joined:
    shown = asked["shown"].combine_chunks()
    shown = shown if isinstance(shown, pa.Array) else pa.concat_arrays(shown.chunks)
    if (pc.max(pc.list_value_length(shown)).as_py() or 0) > MOST_SHOWN:
        shown = pc.list_slice(shown, 0, MOST_SHOWN)
    lists = pc.list_parent_indices(shown).to_numpy(zero_copy_only=False)
    hits = pc.list_flatten(shown)
    starts = np.zeros(asked.num_rows + 1, np.int64)
    np.cumsum(np.bincount(lists, minlength=asked.num_rows), out=starts[1:])
    at = np.arange(len(lists)) - starts[lists] + 1
    every = pa.chunked_array([hits, *events["item"].chunks], pa.string()).combine_chunks()
    every = every if isinstance(every, pa.Array) else pa.concat_arrays(every.chunks)
    encoded = every.dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    query = np.concatenate([lists.astype(np.int64), row])
    action = events["action"].to_numpy()
    position = np.concatenate([at, events["position"].to_numpy().astype(np.int64)])
    listed = np.arange(len(query)) < len(lists)
    impression = np.concatenate([np.ones(len(lists), bool), action == CODES["impression"]])
    real = codes >= 0
    many = max(1, len(encoded.dictionary))
    pairs, inverse = np.unique(query[real] * many + codes[real], return_inverse=True)
    counts["clicked or used, but not in the list that was shown"] += _outside(
        pairs // many, inverse, listed[real], impression[real]
    )
    unknown = np.iinfo(np.int64).max
    place_in = np.where(position[real] > 0, position[real] + np.where(listed[real], 0, MOST_SHOWN + 1), unknown)
    best = np.full(len(pairs), unknown)
    np.minimum.at(best, inverse, place_in)  # the list's own position wins over the event's
    best = np.where(best == unknown, 0, np.where(best > MOST_SHOWN, best - MOST_SHOWN - 1, best))
    was_shown = np.zeros(len(pairs), bool)
    was_shown[inverse[impression[real]]] = True
    own = inverse[~listed[real]]
    did = {}
    event_real = real[len(lists) :]
    for name in ACTIONS:
        flags = np.zeros(len(pairs), bool)
        flags[own[action[event_real] == CODES[name]]] = True
        did[name] = flags
    seconds, clicked_at = _times(events, event_real, own, len(pairs), action)
    return Joined(
        query=asked["query"].to_numpy(),
        client=asked["client"].to_numpy(),
        session=asked["session"].to_numpy(),
        time=asked["time"].to_numpy(),
        score=asked["value"].to_numpy(),
        failed=asked["position"].to_numpy() == FAILED,
        key=asked["key"].to_numpy(),
        text=asked["text"].combine_chunks(),
        items=encoded.dictionary,
        pair_query=pairs // many,
        pair_item=pairs % many,
        position=best,
        shown=was_shown,
        did=did,
        dwell=seconds,
        clicked_at=clicked_at,
        counts=counts,
    )


def _outside(pair_query: I64, inverse: I64, listed: Bool, impression: Bool) -> int:
    """Pairs that were used but not shown, of queries that say what they showed."""
    known = np.zeros(len(pair_query), bool)
    known[inverse[listed | impression]] = True
    queries = np.unique(pair_query[known])
    return int((~known & np.isin(pair_query, queries)).sum())


def _times(
    events: pa.Table, real: Bool, own: I64, pairs: int, action: npt.NDArray[np.int8]
) -> tuple[npt.NDArray[np.float64], I64]:
    """(seconds of the longest dwell, time of the first click) of each pair."""
    seconds = np.full(pairs, -1.0)
    value = np.asarray(events["value"].to_numpy(), np.float64)[real]
    dwelt = (action[real] == CODES["dwell"]) & ~np.isnan(value)
    np.maximum.at(seconds, own[dwelt], value[dwelt])
    also = (action[real] == CODES["click"]) & ~np.isnan(value)  # a click that says how long
    np.maximum.at(seconds, own[also], value[also])
    first = np.full(pairs, np.iinfo(np.int64).max)
    time = events["time"].to_numpy()[real]
    clicked = (action[real] == CODES["click"]) & (time > 0)
    np.minimum.at(first, own[clicked], time[clicked])
    return np.where(seconds < 0, np.nan, seconds), np.where(first == np.iinfo(np.int64).max, 0, first)
