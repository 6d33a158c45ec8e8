"""The figures of a mining: the documented names and order, there and back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mining.choice.filters import Cuts
from mining.report.counts import Counts
from mining.report.figures import ChoiceFigures
from tests.support.mining_figures import CONFUSION, SAMPLE, figures_of

CHOICE = [
    *("queries", "candidates", "survivors", "chosen", "judged", "judged_left_out", "new", "queries_short", "queries_empty"),
    *(
        "suspected_false_negatives",
        "above_positive",
        "teacher_read",
        "teacher_tied",
        "relabelled",
        "weak_queries",
        "dropped",
        "dropped_short",
        "sources",
        "hit_rate",
        "hardness",
    ),
    *("engine", "negatives", "cuts"),
]


def test_mining_json_has_the_documented_names_and_shapes() -> None:
    figures = figures_of(confusion=CONFUSION, samples=[SAMPLE], cuts=Cuts(0.25, None, 0.5))
    got = json.loads(json.dumps(figures.to_json()))
    assert list(got) == [*CHOICE, "reuse", "confusion", "search", "report", "warnings", "advice", "samples", "weak"]
    assert got["hit_rate"] == 0.8
    assert got["suspected_false_negatives"] == 50
    assert got["sources"] == {"model": 900, "judged": 90}
    assert got["hardness"]["p50"] == -0.245
    assert got["cuts"] == {"relative": 0.25, "absolute": None, "ceiling": 0.5}
    assert list(got["reuse"]) == ["items", "used", "top_share", "gini", "histogram", "most_used"]
    assert got["reuse"]["most_used"] == [{"item_id": "i7", "title": "Seven", "uses": 4}]
    assert got["confusion"] == {"column": "genres", "values": ["crime", "(none)"], "counts": [[30, 10], [0, 0]]}
    assert list(got["samples"][0]) == ["query_id", "query", "relevant", "relevant_total", "negatives"]
    assert got["samples"][0]["relevant"] == [{"item_id": "i1", "text": "right | so", "score": 0.5}]
    assert got["samples"][0]["negatives"][0] == {
        "item_id": "i2",
        "text": "<b>wrong</b>",
        "score": 0.75,
        "position": 3,
        "source": "model",
        "suspected": True,
    }


@pytest.mark.parametrize("cuts", [None, Cuts(0.25, None, 0.5)])
def test_the_figures_of_a_commit_come_back(cuts: Cuts | None) -> None:
    counts = Counts(queries=2, candidates=4, survivors=3, dropped={"positive": 1}, hardness=np.ones(400, np.int64))
    figures = ChoiceFigures.of(counts, engine="faiss", negatives="/run/negatives", cuts=cuts)
    assert figures.hit_rate == 0.75
    written = json.loads(json.dumps(figures.to_json()))
    assert list(written) == CHOICE
    assert ChoiceFigures.from_json(written | {"report": "more"}) == figures


def test_a_mining_of_nothing_has_a_hit_rate_of_nought() -> None:
    assert ChoiceFigures.of(Counts()).hit_rate == 0.0
