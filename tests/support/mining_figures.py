"""A mining's figures for tests of its report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mining.report.confusion import Confusion
from mining.report.counts import Counts, Reuse, UsedItem
from mining.report.describe import Described
from mining.report.figures import ChoiceFigures, MiningFigures
from mining.report.samples import ShownItem, ShownNegative, ShownSample

CONFUSION = Confusion("genres", ["crime", "(none)"], [[30, 10], [0, 0]])
SAMPLE = ShownSample(
    "q_1",
    "a *bold*\nquestion",
    relevant=[ShownItem("i1", "right | so", 0.5)],
    relevant_total=3,
    negatives=[
        ShownNegative("i2", "<b>wrong</b>", 0.75, position=3, source="model", suspected=True),
        ShownNegative("i3", "judged", 0.25, position=-1, source="judged", suspected=False),
    ],
)


def figures_of(**changed: Any) -> MiningFigures:
    """A mining with nothing unusual, but for what is changed."""
    hardness = np.zeros(400, np.int64)
    hardness[150] = 900
    counts = Counts(
        queries=100,
        candidates=10_000,
        survivors=8_000,
        chosen=990,
        new=400,
        queries_short=2,
        suspected=50,
        dropped={"positive": 100, "rule:genres:disjoint": 1500, "relative_margin": 400},
        from_source={"model": 900, "judged": 90},
        hardness=hardness,
    )
    reuse = Reuse(500, 300, 0.05, 0.3, {"0": 200, "1": 300}, [UsedItem("i7", "Seven", 4)])
    figures = MiningFigures.joined(
        ChoiceFigures.of(counts, engine="faiss", negatives="/run/negatives"),
        Described(reuse, None, [], []),
        search={"mode": "ivf", "engine": "faiss", "recall": 0.995, "seconds": {"wall": 1.5}},
        report="/run/mining.md",
    )
    return replace(figures, **changed)
