"""The guide names every threshold of the rules with its figure, and every finding."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import eval.diagnosis
from eval.diagnosis.rank import ORDER

GUIDE = Path(__file__).parents[3] / "docs" / "diagnose.md"
NO_THRESHOLD = {
    "BELOW_0": "the other side of nothing",
    "SPIKE_WINDOW": "where a line's neighbours end",
    "SAME_TRAINING": "goes into a standard error",
    "USUAL_TEMPERATURE": "is proposed, not compared with",
    "WEIGHT_DECAY": "is proposed, not compared with",
    "LONGEST_NAME": "is where a name is cut",
    "LEAST_BATCH": "is proposed, not compared with",
    "VALIDATED": "goes into a standard error",
}
"""Constants of the rules that no figure is held against."""


def thresholds() -> dict[str, float]:
    """Every number that a module of the diagnosis names."""
    found = pkgutil.walk_packages(eval.diagnosis.__path__, "eval.diagnosis.")
    modules = [importlib.import_module(each.name) for each in found]
    numbers = {
        name: float(value)
        for module in modules
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, int | float)
    }
    assert numbers.keys() >= NO_THRESHOLD.keys()
    return {name: value for name, value in numbers.items() if name not in NO_THRESHOLD}


def test_the_guide_has_every_threshold_and_every_finding() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    told = re.findall(r"`([A-Z_0-9]+) = ([\d.]+)`", text)
    assert {name: float(value) for name, value in told} == thresholds()
    assert len(told) == len(thresholds()), "each is told once"
    assert {f"`{name}`" for name in ORDER} <= set(re.findall(r"`\w+`", text))
