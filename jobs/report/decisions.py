"""The diagnosis and the gate of a run for its report, computed from the commits. Writes nothing."""

from __future__ import annotations

from typing import Any

from cluster.storage import Store
from jobs.finished.diagnose import diagnose_output
from jobs.finished.gate.gate import judge

Json = dict[str, Any]
GATE = "gate.json"


def read_diagnosis(store: Store) -> Json:
    """What `hardmine diagnose --json` prints: {"findings": […]}.

    Raises:
        ArtifactError: a commit cannot be read.
    """
    return diagnose_output(store).as_json()


def read_gate(store: Store, *, finished: bool) -> Json | None:
    """The stored answer of `hardmine gate`, with its latency and thresholds, if it judged this evaluation. If not, the
    gate's answer now, without latency. None: the run is not finished.

    Raises:
        ConfigError: the run's settings of the gate cannot be read. ArtifactError: something of the run is damaged.
    """
    if not finished:
        return None
    now = judge(store, latency=False)
    stored: Json = store.read_json(GATE) if store.exists(GATE) else {}
    return stored if stored.get("evaluation") == now["evaluation"] else now
