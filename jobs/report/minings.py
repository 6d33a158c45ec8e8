"""The minings of a run for its report: figures of mining.json, the waterfall, and samples of the last mining."""

from __future__ import annotations

import json
from typing import Any

from cluster.commits import Commit
from cluster.storage.digests import read_checked
from cluster.storage.store import Store
from jobs.record.record import RunRecord
from jobs.record.stages import Kind, Scope
from mining.report.markdown import waterfall

Json = dict[str, Any]

MOST_SAMPLES = 8
MOST_ITEMS = 6
"""Relevant items, and negatives, shown per sample."""
FIGURES = (
    "queries",
    "candidates",
    "survivors",
    "chosen",
    "judged",
    "judged_left_out",
    "new",
    "queries_short",
    "queries_empty",
    "suspected_false_negatives",
    "above_positive",
    "hit_rate",
    "hardness",
    "sources",
    "reuse",
    "confusion",
    "cuts",
    "warnings",
)


def read_minings(store: Store, record: RunRecord) -> list[Json]:
    """A dict per measured mined round, oldest first, or of `hardmine mine` alone; the last one has samples."""
    reports = [(str(model.name), model.label, model.report) for model in record.rounds if model.report is not None]
    alone = record.find(Kind.REPORT, scope=Scope.ALONE)
    if not reports and alone is not None:
        reports = [("mine", "mining alone", alone)]
    return [
        {"name": name, "label": label}
        | {figure: commit.figures.get(figure) for figure in FIGURES}
        | ({"warnings": commit.figures.get("advice")} if commit is alone else {})
        | {
            "waterfall": [
                {"step": step, "count": count, "share": share}
                for step, count, share in waterfall(*(commit.figures[name] for name in ("candidates", "dropped", "survivors")))
            ],
            "samples": read_samples(store, commit) if commit is reports[-1][2] else [],
        }
        for name, label, commit in reports
    ]


def read_samples(store: Store, report: Commit) -> list[Json]:
    """The first samples of a mining report, with few items each; []: it lists no mining.json. Raises DamagedObject."""
    folder = next((path.rpartition("/")[0] for path in report.files if path.endswith("/mining.md")), None)
    if folder is None:
        return []
    path = f"{folder}/mining.json"
    if path not in report.files:
        return []
    samples = json.loads(read_checked(store, path, report.files[path]["sha256"])).get("samples") or []
    return [
        sample
        | {
            "relevant": sample["relevant"][:MOST_ITEMS],
            "negatives": sample["negatives"][:MOST_ITEMS],
            "negatives_total": len(sample["negatives"]),
        }
        for sample in samples[:MOST_SAMPLES]
    ]
