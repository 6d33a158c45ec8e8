"""One arm's telemetry: read, averaged over micro-steps, smoothed, summed up in a row."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.shared.command import EMPTY, Row
from cluster.commits import Ledger
from cluster.storage.store import Store
from training.telemetry.telemetry import read_lines

F64 = npt.NDArray[np.float64]
FIGURES = ("loss", "effective_negatives", "hardest_weight", "dead_negatives", "gradient_share_hard", "gradient_share_random")
"""What is printed of each arm."""


@dataclass(frozen=True)
class Arm:
    """One telemetry: figures per optimizer step (NaN where a step has none), and of validations."""

    steps: F64
    rounds: F64
    """Number of the round of each step."""
    figures: dict[str, F64]
    checked_at: F64
    recall: F64

    def of(self, name: str) -> F64:
        """A figure per step; NaN where it was never logged."""
        return self.figures.get(name, np.full(len(self.steps), np.nan))

    def smooth(self, name: str) -> F64:
        """Moving mean of a figure within each round."""
        return np.concatenate([smooth(self.of(name)[self.rounds == number]) for number in dict.fromkeys(self.rounds)])


def load(path: str) -> Arm:
    """Read telemetry; micro-steps of one step become their mean, and a later round goes on where the one before ended."""
    address, _, name = str(Path(path).absolute()).rpartition("/") if "://" not in path else path.rpartition("/")
    if name == "telemetry.jsonl":
        root, _, folder = address.rpartition("/")
        lines = read_lines(Store(root), folder)
    else:
        lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    seen: dict[int, list[dict[str, Any]]] = {}
    checks: list[tuple[int, float]] = []
    before, last, number = 0, 0, None
    for line in lines:
        if number not in {None, line.get("round", number)}:
            before = last
        number = line.get("round", number)
        last = before + int(line["step"])
        if line.get("event") == "validation":
            checks += [(last, float(line["recall"]))]
        elif "event" not in line:
            seen.setdefault(last, []).append(line)
    names = {name for micro in seen.values() for name, value in micro[0].items() if isinstance(value, int | float)}
    figures = {name: np.array([_mean(micro, name) for micro in seen.values()]) for name in sorted(names)}
    rounds = np.array([micro[0].get("round", 0) for micro in seen.values()], float)
    return Arm(
        np.array(list(seen), float),
        rounds,
        figures,
        np.array([step for step, _ in checks], float),
        np.array([value for _, value in checks], float),
    )


def smooth(values: F64) -> F64:
    """Centred moving mean over a tenth of the steps; gaps are passed over."""
    half = max(1, len(values) // 20)
    known = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    count = np.concatenate([[0], np.cumsum(known)])
    low = np.maximum(np.arange(len(values)) - half, 0)
    high = np.minimum(np.arange(len(values)) + half + 1, len(values))
    with np.errstate(invalid="ignore"):
        mean: F64 = (total[high] - total[low]) / (count[high] - count[low])
    return mean


def _mean(micro: list[dict[str, Any]], name: str) -> float:
    values = [float(line[name]) for line in micro if line.get(name) is not None]
    return float(np.mean(values)) if values else float("nan")


def arm_row(case: str, arm: Arm) -> Row:
    """Means over the last tenth of the steps."""
    end = slice(-max(1, len(arm.steps) // 10), None)
    figures = {name: float(np.nanmean(arm.of(name)[end])) for name in FIGURES if np.isfinite(arm.of(name)[end]).any()}
    return EMPTY | {"case": case, "steps": len(arm.steps)} | figures


def generated_telemetry(folder: Path) -> tuple[str, str]:
    """(random, mined): the telemetry of a run that tests.support.synthetic_run writes."""
    from tests.support.synthetic_run import Size, write_run

    store = write_run(folder / "run", Size(queries=50, items=100, hits=20, steps=200))
    files = {
        commit.name: next(path for path in commit.files if path.endswith("/telemetry.jsonl"))
        for commit in Ledger(store).all()
        if commit.name.endswith("-train")
    }
    mined = max(name for name in files if "random" not in name)
    random = max(name for name in files if "random" in name)
    return str(folder / "run" / files[random]), str(folder / "run" / files[mined])
