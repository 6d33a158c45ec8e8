"""What the diagnosis and the gate say of a run, as the report shows it. Taken anew from the commits, writing nothing."""

from __future__ import annotations

from typing import Any

from cluster.storage import Store
from jobs.finished.diagnose import diagnose_output
from jobs.finished.gate.gate import judge

Json = dict[str, Any]
LEFT = "gate.json"


def read_diagnosis(store: Store) -> Json:
    """{"findings": […]}, as `hardmine diagnose --json` prints them.

    Raises:
        ArtifactError: a commit cannot be read.
    """
    return diagnose_output(store).as_json()


def read_gate(store: Store, *, finished: bool) -> Json | None:
    """The gate's answer: what `hardmine gate` left, with its latency and thresholds, if it is still about this model; else
    what it would say now without measuring the latency. None: the run is not finished.

    Raises:
        ConfigError: the run's settings of the gate cannot be read. ArtifactError: something of the run is damaged.
    """
    if not finished:
        return None
    now = judge(store, latency=False)
    left: Json = store.read_json(LEFT) if store.exists(LEFT) else {}
    return left if left.get("evaluation") == now["evaluation"] else now
