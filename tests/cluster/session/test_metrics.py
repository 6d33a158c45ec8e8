"""The counters: what is counted where, and shown in the dashboard. That Prometheus can read them: test_submit_cluster."""

from __future__ import annotations

import json
import re
from pathlib import Path

from cluster.session.metrics import COUNTERS, add_to

ROOT = Path(__file__).parents[3]


def test_every_counter_is_counted_and_shown() -> None:
    code = "".join(path.read_text() for folder in ("mining", "training") for path in (ROOT / folder).rglob("*.py"))
    assert set(re.findall(r'add_to\("(\w+)"', code)) == set(COUNTERS)
    shown = json.dumps(json.loads((ROOT / "cluster/grafana.json").read_text()))
    assert [name for name in COUNTERS if f"ray_{name}" not in shown] == []


def test_without_ray_nothing_is_counted_and_nothing_fails() -> None:
    for name in COUNTERS:
        add_to(name, 3)
