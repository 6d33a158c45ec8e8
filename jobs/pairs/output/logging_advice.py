"""What to log from now on: a JSON Schema of UBI lines, and a short logger for Python and for JavaScript."""

from __future__ import annotations

from typing import Any

UBI_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "A line of a UBI 1.3 log: a query with the results that were shown, or what a user did with one of them",
    "type": "object",
    "required": ["query_id", "client_id", "timestamp"],
    "properties": {
        "query_id": {"type": "string", "minLength": 1},
        "client_id": {"type": "string", "minLength": 1},
        "session_id": {"type": "string"},
        "timestamp": {"type": "string", "format": "date-time"},
        "user_query": {"type": "string", "minLength": 1, "maxLength": 1000},
        "query_response_hit_ids": {"type": "array", "items": {"type": "string"}, "maxItems": 100},
        "query_attributes": {"type": "object", "properties": {"top_score": {"type": "number"}}},
        "action_name": {"type": "string"},
        "event_attributes": {
            "type": "object",
            "required": ["object"],
            "properties": {
                "object": {
                    "type": "object",
                    "required": ["object_id"],
                    "properties": {"object_id": {"type": "string"}, "object_id_field": {"type": "string"}},
                },
                "position": {"type": "object", "properties": {"ordinal": {"type": "integer", "minimum": 1}}},
                "dwell_time": {"type": "number", "minimum": 0},
            },
        },
    },
    "oneOf": [
        {"required": ["user_query", "query_response_hit_ids"], "not": {"required": ["action_name"]}},
        {"required": ["action_name", "event_attributes"]},
    ],
}

PYTHON = """\
import json, time, uuid


def log(line, path="ubi.jsonl"):
    with open(path, "a") as file:
        file.write(json.dumps({"timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **line}) + "\\n")


def log_query(client, text, hits):  # hits: ids of the results, best first
    query_id = str(uuid.uuid4())
    log({"query_id": query_id, "client_id": client, "user_query": text, "query_response_hit_ids": hits[:40]})
    return query_id


def log_event(client, query_id, action, item, position, dwell_s=None):
    where = {"object": {"object_id": item}, "position": {"ordinal": position}}
    log(
        {
            "query_id": query_id,
            "client_id": client,
            "action_name": action,
            "event_attributes": where | ({"dwell_time": dwell_s} if dwell_s else {}),
        }
    )
"""

JAVASCRIPT = """\
const send = (line) => navigator.sendBeacon("/ubi",
  JSON.stringify({ timestamp: new Date().toISOString(), ...line }) + "\\n");

function logQuery(client, text, hits) { // hits: ids of the results, best first
  const id = crypto.randomUUID();
  send({ query_id: id, client_id: client, user_query: text, query_response_hit_ids: hits.slice(0, 40) });
  return id;
}
function logEvent(client, id, action, item, position, dwell) {
  send({ query_id: id, client_id: client, action_name: action, event_attributes: {
    object: { object_id: item }, position: { ordinal: position }, ...(dwell && { dwell_time: dwell }) } });
}
"""
