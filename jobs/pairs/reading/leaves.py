"""Where the fields of a log lie, by its shape, and which shape a log has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["id", "text", "time", "number", "ids", "feedback", "items"]
Shape = Literal["ubi", "rag", "editorial", "retrieval_eval", "table"]


@dataclass(frozen=True)
class Leaf:
    """A field that we read."""

    kind: Kind
    paths: tuple[str, ...]
    """Where it may be, first one first; levels are parted by dots."""


TIMES = ("timestamp", "time", "ts", "created_at", "event_time")
USERS = ("client_id", "user_id", "user", "visitor_id")
SESSIONS = ("session_id", "event_attributes.session_id", "session")
TEXTS = ("user_query", "query", "question", "query_text", "search_term", "text", "anchor")
LEAVES: dict[Shape, dict[str, Leaf]] = {
    "ubi": {
        "query_id": Leaf("id", ("query_id",)),
        "user": Leaf("id", USERS),
        "session": Leaf("id", SESSIONS),
        "query": Leaf("text", ("user_query",)),
        "time": Leaf("time", ("timestamp",)),
        "action": Leaf("text", ("action_name",)),
        "item": Leaf("id", ("event_attributes.object.object_id", "event_attributes.object_id", "object_id")),
        "position": Leaf("number", ("event_attributes.position.ordinal", "position.ordinal", "event_attributes.ordinal")),
        "value": Leaf("number", ("event_attributes.dwell_time", "event_attributes.dwell", "dwell_time")),
        "score": Leaf("number", ("query_attributes.top_score", "query_attributes.max_score", "top_score")),
        "shown": Leaf("ids", ("query_response_hit_ids", "query_response_object_ids")),
    },
    "rag": {
        "query_id": Leaf("id", ("query_id", "id", "request_id", "trace_id")),
        "user": Leaf("id", USERS),
        "session": Leaf("id", SESSIONS),
        "query": Leaf("text", TEXTS),
        "time": Leaf("time", TIMES),
        "shown": Leaf("ids", ("retrieved",)),
        "cited": Leaf("ids", ("cited", "citations")),
        "deleted": Leaf("ids", ("deleted",)),
        "feedback": Leaf("feedback", ("feedback", "thumbs")),
        "score": Leaf("number", ("top_score",)),
    },
    "editorial": {
        "query": Leaf("text", TEXTS),
        "item": Leaf("id", ("item_id", "doc_id", "product_id", "positive_id", "item")),
        "label": Leaf("number", ("score", "grade", "label", "rating", "relevance")),
        "weight": Leaf("number", ("weight",)),
        "source": Leaf("text", ("source",)),
        "accept": Leaf("text", ("accept",)),
    },
    "retrieval_eval": {
        "query": Leaf("text", ("query",)),
        "split": Leaf("text", ("split",)),
        "time": Leaf("time", ("time",)),
        "top": Leaf("items", ("top",)),
        "hit": Leaf("feedback", ("hits.hit@10",)),
    },
    "table": {
        "query_id": Leaf("id", ("query_id",)),
        "user": Leaf("id", USERS),
        "session": Leaf("id", SESSIONS),
        "query": Leaf("text", TEXTS),
        "time": Leaf("time", TIMES),
        "action": Leaf("text", ("action", "event", "event_type", "action_name")),
        "item": Leaf("id", ("item_id", "product_id", "doc_id", "item")),
        "position": Leaf("number", ("position", "rank", "ordinal")),
        "value": Leaf("number", ("dwell_s", "dwell")),
        "score": Leaf("number", ("top_score",)),
        "shown": Leaf("ids", ("shown",)),
        "cited": Leaf("ids", ("cited",)),
        "rating": Leaf("number", ("rating", "stars")),
    },
}


def shape_of(columns: Iterable[str], mapped: Mapping[str, str]) -> Shape | None:
    """The shape of a log with these columns; None: it is none that is known.

    Args:
        mapped: meaning -> column, of the settings; a log that has one of these columns is a table.
    """
    names = set(columns)

    def has(shape: Shape, *fields: str) -> bool:
        return all(names & set(LEAVES[shape][field].paths) for field in fields)

    judged = has("editorial", "query", "item") and not has("table", "action") and not has("table", "user")
    acted = has("table", "item") and (has("table", "action") or has("table", "rating"))
    tests: dict[Shape, bool] = {
        "table": any(column in names for column in mapped.values()),
        "retrieval_eval": {"top", "query"} <= names and bool(names & {"event", "hits"}),
        "rag": "retrieved" in names,
        "ubi": bool(names & {"action_name", "user_query"}),
        "editorial": judged,
    }
    shape = next((name for name, is_so in tests.items() if is_so), None)
    return shape or ("table" if acted and (has("table", "query") or has("table", "user") or has("table", "query_id")) else None)


def leaves_of(shape: Shape, mapped: Mapping[str, str]) -> dict[str, Leaf]:
    """The fields of a shape; for a table, the columns that the settings name come instead of the usual ones."""
    if shape != "table":
        return LEAVES[shape]
    return {name: Leaf(leaf.kind, (mapped[name],)) if name in mapped else leaf for name, leaf in LEAVES["table"].items()}


def nested(row: Mapping[str, Any], path: str) -> Any:
    """The value at a path; None where a level is missing."""
    if path in row:  # a flat table may spell the path as a name
        return row[path]
    value: Any = row
    for name in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value
