"""The guide names every threshold with its default, and every finding."""

from __future__ import annotations

import re
from pathlib import Path

from eval.diagnosis.rank import ORDER
from eval.diagnosis.thresholds import DiagnosisSettings

GUIDE = Path(__file__).parents[3] / "docs" / "diagnose.md"


def test_the_guide_has_every_threshold_and_every_finding() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    told = {name: float(value) for name, value in re.findall(r"`(\w+) = ([\d.]+)`", text)}
    assert told == {name: float(value) for name, value in DiagnosisSettings().model_dump().items()}
    assert {f"`{name}`" for name in ORDER} <= set(re.findall(r"`\w+`", text))
