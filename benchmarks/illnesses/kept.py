"""Evidence as a JSON file and back, so that rules can be tuned without training again."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from eval.diagnosis.evidence import Arm, Evidence, Measurement, Mining, Slice, Training
from eval.significance import Interval


def write_evidence(path: Path, evidence: Evidence, **more: Any) -> None:
    """Write it; `more` stands beside it."""
    text = json.dumps({"evidence": asdict(evidence)} | more, default=lambda array: array.tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.rename(path)


def read_evidence(path: Path) -> Evidence:
    """What `write_evidence` wrote."""
    kept = json.loads(path.read_text())["evidence"]
    return Evidence(
        **kept
        | {
            "arms": [_arm(arm) for arm in kept["arms"]],
            "baseline": _measurement(kept["baseline"]),
            "general": [_measurement(measured) for measured in kept["general"]],
        }
    )


def _arm(kept: dict[str, Any]) -> Arm:
    return Arm(
        kept["name"],
        _measurement(kept["start"]),
        [_training(training) for training in kept["trainings"]],
        [_measurement(measured) for measured in kept["measurements"]],
        [Mining(**mining) for mining in kept["minings"]],
    )


def _training(kept: dict[str, Any]) -> Training:
    steps = {name: np.array(values, np.float64) for name, values in kept["steps"].items()}
    return Training(
        **kept | {"steps": steps} | {name: np.array(kept[name], np.float64) for name in ("validation_steps", "validation_recall")}
    )


def _measurement(kept: dict[str, Any] | None) -> Any:
    if kept is None:
        return None
    intervals = {
        name: {metric: Interval(**values) for metric, values in kept[name].items()}
        for name in ("against_baseline", "against_previous", "against_mined")
    }
    return Measurement(**kept | intervals | {"slices": [_slice(values) for values in kept["slices"]]})


def _slice(kept: dict[str, Any]) -> Slice:
    against = kept["against_baseline"]
    return Slice(**kept | {"against_baseline": Interval(**against) if against else None})
