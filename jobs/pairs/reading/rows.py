"""Flat tables of every shape as one table of rows: queries, events and labels. Users become hashes here, and nowhere later.

kind i8 (QUERY, EVENT, LABEL), query u64 (0: none), client u64 (0: none), session u64, time i64 (ms, 0: none), text str,
action i8, item str, position i32 (0: none; of a query FAILED, EARLIER_TEXT or OF_EVENT), value f64 (best score of a query,
seconds of a dwell, grade of a label), weight f64, source str (of a label), shown list<str>
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.pairs.partitions import hashes
from jobs.pairs.reading.clean import cleaned, usable, with_text
from jobs.pairs.reading.leaves import Shape
from jobs.pairs.reading.notes import Notes
from jobs.pairs.settings import SignalSettings
from jobs.pairs.signals import CODES, action_codes

U64 = npt.NDArray[np.uint64]
QUERY, EVENT, LABEL = 0, 1, 2
SCHEMA = pa.schema(
    [
        ("kind", pa.int8()),
        ("query", pa.uint64()),
        ("client", pa.uint64()),
        ("session", pa.uint64()),
        ("time", pa.int64()),
        ("text", pa.string()),
        ("action", pa.int8()),
        ("item", pa.string()),
        ("position", pa.int32()),
        ("value", pa.float64()),
        ("weight", pa.float64()),
        ("source", pa.string()),
        ("shown", pa.list_(pa.string())),
    ]
)
FAILED, EARLIER_TEXT, OF_EVENT = 1, 2, 3
"""`position` of a query that found nothing in an evaluation, that only gives the text of an earlier output's labels, and that is
named in the row of an event."""
NOBODY = pa.scalar(0, pa.uint64())
"""No query, no client."""
MOST_SHOWN = 100
"""Results of a query that are looked at."""
MOST_REASONS = 40
"""Reasons of one piece that are counted by name: a wrong column may have a million actions."""


def to_rows(shape: Shape, flat: pa.Table, signals: SignalSettings, salt: str, notes: Notes) -> pa.Table:
    """The rows of a flat table; what cannot be used is counted.

    Args:
        salt: of the hashes of users, sessions and query ids.
    """
    if not flat.num_rows:
        return SCHEMA.empty_table()
    if shape == "retrieval_eval":
        return _of_evaluation(with_text(flat, notes, "query"), salt)
    if shape == "editorial":
        return _of_editors(with_text(flat, notes, "query"), salt, notes)
    if shape == "rag":
        return _of_answers(with_text(flat, notes, "query"), salt, notes)
    return _of_clicks(shape, flat, signals, salt, notes)


def _table(rows: int, columns: Mapping[str, object]) -> pa.Table:
    """A table of the schema; columns that are not given are empty."""
    empty: dict[pa.DataType, object] = {pa.int8(): 0, pa.uint64(): 0, pa.int64(): 0, pa.int32(): 0}
    arrays = []
    for field in SCHEMA:
        if field.name in columns:
            values = columns[field.name]
            array = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, field.type)
            arrays.append(array.cast(field.type))
        elif field.type in empty:
            arrays.append(pa.array(np.zeros(rows), field.type))
        else:
            arrays.append(pa.nulls(rows, field.type))
    return pa.table(arrays, schema=SCHEMA)


def _keys(flat: pa.Table, salt: str) -> tuple[U64, U64, U64]:
    """(query, client, session) of each row. A query without an id is named by who asked what, and when."""
    client = hashes(flat["user"], salt)
    session = hashes(flat["session"], salt) if "session" in flat.column_names else np.zeros(flat.num_rows, np.uint64)
    client = np.where(client == 0, session, client)  # who has no name is its session
    session = np.where(session == 0, client, session ^ np.where(session == client, 0, client))
    query = hashes(flat["query_id"], salt)
    text = hashes(flat["query"], salt)
    time = pc.fill_null(flat["time"], 0).to_numpy().astype(np.uint64)
    if "shown" in flat.column_names or flat["query_id"].null_count == 0:
        own = mixed(mixed(text, session), time)
    else:
        own = mixed(text, session)
    return np.where((query == 0) & (text != 0), own, query), client, session


def mixed(left: U64, right: U64) -> U64:
    """One 64-bit number of two (as in splitmix64); never 0."""
    with np.errstate(over="ignore"):
        mixed = left ^ (right + np.uint64(0x9E3779B97F4A7C15) + (left << np.uint64(6)) + (left >> np.uint64(2)))
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    result: U64 = np.maximum(mixed ^ (mixed >> np.uint64(31)), np.uint64(1))
    return result


def _of_clicks(shape: Shape, flat: pa.Table, signals: SignalSettings, salt: str, notes: Notes) -> pa.Table:
    """UBI queries and events, also mixed, and event tables with a query, an action and an item in each row."""
    flat = flat.set_column(flat.column_names.index("query"), "query", cleaned(flat["query"]))
    flat = flat.filter(pc.fill_null(usable(flat["query"], notes), True))
    if "rating" in flat.column_names:
        flat = _rated(flat, signals, notes)
    query, client, session = _keys(flat, salt)
    has_text = np.asarray(flat["query"].is_valid())
    has_action = np.asarray(flat["action"].is_valid())
    time = pc.fill_null(flat["time"], 0)
    base = {"query": query, "client": client, "session": session, "time": time}

    asked = has_text & ((shape != "ubi") | ~has_action | (query != 0))
    asked_rows = pa.array(asked)
    whole = {name: pa.array(values) if isinstance(values, np.ndarray) else values for name, values in base.items()}
    queries = pa.table(whole | {"text": flat["query"], "value": flat["score"], "shown": flat["shown"]}).filter(asked_rows)
    own = np.where(has_action[asked], OF_EVENT, 0)
    asked_table = _table(queries.num_rows, {"kind": np.full(queries.num_rows, QUERY), "position": own} | _as_dict(queries))

    notes.skip("no query text, no action and no query id", int((~has_text & ~has_action & (query == 0)).sum()))
    notes.skip("query without a text", int((~has_text & ~has_action & (query != 0)).sum()))
    events = pa.table(
        whole | {"name": flat["action"], "item": flat["item"], "position": flat["position"], "value": flat["value"]}
    ).filter(pa.array(has_action))
    return pa.concat_tables([asked_table, _events(events, signals, notes), *_cited_of(flat, whole)])


def _cited_of(flat: pa.Table, whole: Mapping[str, pa.Array]) -> list[pa.Table]:
    if "cited" not in flat.column_names or flat["cited"].null_count == flat.num_rows:
        return []
    return [_exploded(whole, flat["cited"], "citation")]


def _rated(flat: pa.Table, signals: SignalSettings, notes: Notes) -> pa.Table:
    """A rating as an action, where a row has none; what is neither liked nor disliked is left out."""
    rating = flat["rating"]
    liked, disliked = pc.greater_equal(rating, signals.liked_from), pc.less_equal(rating, signals.liked_from / 2)
    named = pc.if_else(liked, "thumbs_up", pc.if_else(disliked, "thumbs_down", pa.scalar(None, pa.string())))
    between = pc.fill_null(pc.and_(pc.invert(pc.or_(liked, disliked)), pc.is_null(flat["action"])), False)
    notes.skip("rating between disliked and liked", int(pc.sum(between).as_py() or 0))
    action = pc.coalesce(flat["action"], named)
    return flat.set_column(flat.column_names.index("action"), "action", action).filter(pc.invert(between))


def _events(events: pa.Table, signals: SignalSettings, notes: Notes) -> pa.Table:
    known = action_codes(signals.actions)
    names = pc.utf8_lower(events["name"])
    places = pc.index_in(names, value_set=pa.array(list(known)))
    unknown = pc.is_null(places)
    for value in pc.value_counts(names.filter(unknown)).to_pylist():
        reason = f"action {value['values']!r:.40} is no signal"
        known_reason = reason in notes.skipped or len(notes.skipped) < MOST_REASONS
        notes.skip(reason if known_reason else "another action that is no signal", value["counts"])
    codes = pa.array(list(known.values()), pa.int8()).take(pc.fill_null(places, 0))
    no_item = pc.and_(pc.is_null(events["item"]), pc.invert(unknown))
    notes.skip("event without an item", int(pc.sum(no_item).as_py() or 0))
    nobody = pc.and_(pc.equal(events["query"], NOBODY), pc.equal(events["client"], NOBODY))
    nobody = pc.and_(nobody, pc.and_(pc.invert(unknown), pc.is_valid(events["item"])))
    notes.skip("event without a query and without a user", int(pc.sum(nobody).as_py() or 0))
    position = pc.fill_null(events["position"], 0)
    wrong = pc.or_(pc.less(position, 0), pc.not_equal(position, pc.floor(position)))
    zero = pc.and_(pc.equal(position, 0), pc.is_valid(events["position"]))
    if count := int(pc.sum(zero).as_py() or 0):
        notes.values["position 0, read as unknown: positions count from 1"] += count
    if count := int(pc.sum(wrong).as_py() or 0):
        notes.values["position is not a whole number from 1"] += count
    position = pc.min_element_wise(pc.if_else(wrong, 0.0, position), float(MOST_SHOWN))
    kept = pc.and_(pc.invert(unknown), pc.and_(pc.is_valid(events["item"]), pc.invert(nobody)))
    table = pa.table(
        {
            **{name: events[name] for name in ("query", "client", "session", "time", "item", "value")},
            "action": codes,
            "position": position.cast(pa.int32()),
        }
    ).filter(kept)
    return _table(table.num_rows, {"kind": np.full(table.num_rows, EVENT)} | _as_dict(table))


def _as_dict(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    return {name: table[name] for name in table.column_names}


def _of_answers(flat: pa.Table, salt: str, notes: Notes) -> pa.Table:
    """A query for each answer, shown what was retrieved, and events for what was cited, deleted, and liked."""
    query, client, session = _keys(flat, salt)
    whole = {"query": pa.array(query), "client": pa.array(client), "session": pa.array(session)}
    whole["time"] = pc.fill_null(flat["time"], 0)
    count = flat.num_rows
    own = {"kind": np.full(count, QUERY), "text": flat["query"], "value": flat["score"], "shown": flat["shown"]}
    down = pc.equal(pc.fill_null(flat["feedback"], 0.0), -1.0)
    cancelled = int(pc.sum(pc.list_value_length(flat["cited"].filter(down))).as_py() or 0)
    if cancelled:
        notes.values["citation of an answer that was disliked, not counted"] += cancelled
    cited = pc.if_else(down, pa.scalar(None, flat["cited"].type), flat["cited"])
    liked = pc.if_else(pc.equal(pc.fill_null(flat["feedback"], 0.0), 1.0), cited, pa.scalar(None, cited.type))
    tables = [_table(count, own | whole), _exploded(whole, cited, "citation"), _exploded(whole, liked, "thumbs_up")]
    return pa.concat_tables([*tables, _exploded(whole, flat["deleted"], "deletion")])


def _exploded(whole: Mapping[str, pa.Array], lists: pa.ChunkedArray, action: str) -> pa.Table:
    """An event for each id in the lists."""
    lists = lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists
    rows = pc.list_parent_indices(lists)
    items = pc.list_flatten(lists)
    columns = {name: values.take(rows) for name, values in whole.items()}
    return _table(
        len(items), {"kind": np.full(len(items), EVENT), "item": items, "action": np.full(len(items), CODES[action])} | columns
    ).filter(pc.is_valid(items))


def _of_editors(flat: pa.Table, salt: str, notes: Notes) -> pa.Table:
    if flat["accept"].null_count < flat.num_rows:  # the sheet of rejected queries
        yes = pc.is_in(pc.utf8_lower(flat["accept"]), value_set=pa.array(["x", "yes", "y", "1", "true", "ja"]))
        notes.skip("row of a sheet that nobody accepted", int(pc.sum(pc.invert(yes)).as_py() or 0))
        flat = flat.filter(yes)
        # a sheet writes ' before what a spreadsheet would take for a formula
        bare = pc.replace_substring_regex(flat["query"], r"^'([=+@-])", r"\1")
        flat = flat.set_column(flat.column_names.index("query"), "query", bare)
    notes.skip("pair without an item", flat["item"].null_count)
    flat = flat.filter(pc.is_valid(flat["item"]))
    grades = pc.fill_null(flat["label"], 1.0)
    large = pc.or_(pc.greater(grades, 10.0), pc.less(grades, -10.0))
    notes.skip("grade above 10", int(pc.sum(large).as_py() or 0))
    flat, grades = flat.filter(pc.invert(large)), grades.filter(pc.invert(large))
    return _labels(
        flat["query"],
        flat["item"],
        grades,
        flat["weight"],
        pc.coalesce(flat["source"], pa.scalar("editorial", pa.string())),
        salt,
    )


def _labels(
    texts: pa.ChunkedArray, items: pa.ChunkedArray, grades: pa.ChunkedArray, weights: object, sources: object, salt: str
) -> pa.Table:
    count = len(texts)
    columns = {"kind": np.full(count, LABEL), "query": hashes(texts, salt), "text": texts, "item": items, "value": grades}
    return _table(count, columns | {"weight": weights, "source": sources})


def _of_evaluation(flat: pa.Table, salt: str) -> pa.Table:
    """Relevant hits as labels; a query that found none among ten as one that failed; and the split of each query, which it keeps:
    what a run was measured on is never trained on.
    """
    failed = pc.equal(pc.fill_null(flat["hit"], 0.0), -1.0)
    bad = flat.filter(failed)
    queries = _table(
        bad.num_rows,
        {
            "kind": np.full(bad.num_rows, QUERY),
            "query": hashes(bad["query"], salt),
            "text": bad["query"],
            "time": pc.fill_null(bad["time"], 0),
            "position": np.full(bad.num_rows, FAILED),
        },
    )
    splits = _table(
        flat.num_rows,
        {
            "kind": np.full(flat.num_rows, QUERY),
            "query": hashes(flat["query"], salt),
            "text": flat["query"],
            "item": pa.array(["editorial"] * flat.num_rows, pa.string()),
            "source": flat["split"],
            "position": np.full(flat.num_rows, EARLIER_TEXT),
        },
    )
    top = flat["top"].combine_chunks()
    rows, hits = pc.list_parent_indices(top), pc.list_flatten(top)
    relevant = pc.fill_null(pc.struct_field(hits, "relevant"), False)
    rows, items = rows.filter(relevant), pc.struct_field(hits, "item_id").filter(relevant)
    count = len(items)
    sources = pa.array(["retrieval_eval"] * count, pa.string())
    labels = _labels(flat["query"].take(rows), items, np.ones(count), pa.nulls(count, pa.float64()), sources, salt)
    return pa.concat_tables([queries, splits, labels])
