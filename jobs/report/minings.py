"""The minings of a run for its report: figures of mining.json, the waterfall, and samples of the last one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cluster.commits import Commit
from cluster.errors import ArtifactError
from cluster.storage import Store
from jobs.mining_markdown import waterfall

Json = dict[str, Any]

MOST_SAMPLES = 8
MOST_ITEMS = 6
"""Relevant items and negatives shown of one sample."""
FIGURES = ("queries", "candidates", "survivors", "chosen", "judged", "new", "queries_short", "queries_empty",
           "suspected_false_negatives", "above_positive", "hit_rate", "hardness", "sources", "reuse", "confusion", "cuts",
           "warnings")


def read_minings(store: Store, models: Sequence[Json], commits: Mapping[str, Commit]) -> list[Json]:
    """A dict per mined round that was measured, oldest first; the last one with samples."""
    rounds = [model for model in models if model["arm"] == "mined"]
    found: list[Json] = []
    for model in rounds:
        report = commits.get(f"{model['name']}-report") or commits.get(f"{model['name']}-mine")
        if report is None:
            continue
        figures = report.figures
        found.append({"name": model["name"], "round": model["round"]} | {name: figures.get(name) for name in FIGURES} | {
            "waterfall": [{"step": step, "count": count, "share": share} for step, count, share in waterfall(figures)],
            "samples": read_samples(store, report) if model is rounds[-1] else []})
    return found


def read_samples(store: Store, report: Commit) -> list[Json]:
    """The first few samples of a mining report, with few items each; [] where its mining.json is gone."""
    folder = next((path.rpartition("/")[0] for path in report.files if path.endswith("/mining.md")), None)
    if folder is None:
        return []
    try:
        samples = store.read_json(f"{folder}/mining.json").get("samples") or []
    except ArtifactError:  # the commit vouches for mining.md only
        return []
    return [sample | {"relevant": sample["relevant"][:MOST_ITEMS], "negatives": sample["negatives"][:MOST_ITEMS],
                      "negatives_total": len(sample["negatives"])} for sample in samples[:MOST_SAMPLES]]
