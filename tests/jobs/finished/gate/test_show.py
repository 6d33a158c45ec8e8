"""The table of `hardmine gate` on a narrow terminal: values, intervals and outcomes are whole, only long names are folded."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from jobs.finished.gate.show import checks_table


def check(name: str, unit: str, value: float | None, interval: tuple[float, float] | None, passed: bool | None) -> dict[str, Any]:
    low_high = {"low": interval[0], "high": interval[1]} if interval else None
    figures = {"value": value, "interval": low_high, "threshold": 10.0 if unit == "ms" else 0.2, "attainable": 0.432}
    outcome = {None: "not checked", True: "passed", False: "failed"}[passed]
    return {"name": name, "unit": unit, "passed": passed, "uncertain": False, "outcome": outcome, "why": "-", **figures}


@pytest.mark.parametrize("width", [80, 200])
def test_nothing_is_cut_off_at_eighty_columns(width: int) -> None:
    checks = [
        check("added_latency_ms", "ms", 7.58, (-47.64, 33.45), False),
        check("bad_top1:max", "share", 0.125, (0.101, 0.158), True),
        check("a name that is longer than any other", "share", None, None, None),
    ]
    console = Console(file=io.StringIO(), width=width)
    console.print(checks_table({"round": 2, "queries": 1200, "split": "dev", "confidence": 0.95, "checks": checks}))
    out = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in out
    for words in ("+7.58 ms", "-47.64 to +33.45", "+10.00 ms", "10.1% to 15.8%", "failed", "passed", "not checked", "threshold"):
        assert words in out
