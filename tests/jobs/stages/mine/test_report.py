"""What a person is told about a mining: nothing where nothing is unusual, else numbers and the setting to change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from jobs.stages.mine.report import summarise, warnings
from mining.report.counts import Counts
from mining.report.markdown import markdown, plain, waterfall
from mining.settings import MiningSettings

SETTINGS = MiningSettings(num_negatives=10)


def figures(**changed: Any) -> dict[str, Any]:
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
    most = {"item_id": "i7", "title": "Seven", "uses": 4}
    found = summarise(counts) | {
        "reuse": {
            "items": 500,
            "used": 300,
            "top_share": 0.05,
            "gini": 0.3,
            "histogram": {"0": 200, "1": 300},
            "most_used": [most],
        },
        "confusion": None,
        "samples": [],
        "warnings": [],
        "search": {"mode": "ivf", "engine": "faiss", "recall": 0.995, "seconds": {"wall": 1.5}},
    }
    return found | changed


def test_the_figures_have_the_documented_names() -> None:
    got = figures()
    assert got.keys() >= {
        "queries",
        "candidates",
        "survivors",
        "hit_rate",
        "dropped",
        "queries_short",
        "suspected_false_negatives",
        "sources",
    }
    assert got["hit_rate"] == 0.8
    assert got["suspected_false_negatives"] == 50
    assert got["hardness"]["p50"] == -0.245
    assert summarise(Counts())["hit_rate"] == 0.0


def test_nothing_is_said_where_nothing_is_unusual() -> None:
    assert warnings(figures(), SETTINGS) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"hit_rate": 0.04, "dropped": {"positive": 9_000, "max_score": 400, "min_score": 200}},
            [
                "hit rate 4.0%",
                "below 10%",
                "mining.low_hit_rate",
                "max_score dropped most, 400 of 10,000",
                "raise mining.max_score",
            ],
        ),
        ({"hit_rate": 0.04, "dropped": {"teacher:unread": 9, "relative_margin": 3}}, ["raise mining.teacher.depth"]),
        ({"hit_rate": 0.04, "dropped": {"rule:genres:disjoint": 9}}, ["loosen mining.rules"]),
        (
            {"queries_short": 21, "queries_empty": 3, "dropped_short": {"positive": 70, "relative_margin": 60, "min_score": 5}},
            [
                "21 of 100 queries have fewer than 10",
                "3 of them none",
                "relative_margin took most of theirs (60)",
                "lower mining.relative_margin",
                "raise mining.num_hits (now 100)",
            ],
        ),
        (
            {"suspected_false_negatives": 1_001},
            ["1,001 of 10,000 candidates (10.0%", "mining.high_suspected = 10%", "[mining.teacher]"],
        ),
        ({"search": {"mode": "ivf", "recall": 0.973}}, ["97.3%", "mode ivf", "mining.search.min_recall"]),
    ],
)
def test_what_is_unusual_is_said_with_its_numbers_and_the_setting(changed: dict[str, Any], words: list[str]) -> None:
    found = warnings(figures(**changed), SETTINGS)
    assert len(found) == 1
    for word in words:
        assert word in found[0]


@pytest.mark.parametrize(("queries", "uses", "said"), [(100, 20, False), (100, 21, True), (1000, 50, False), (1000, 51, True)])
def test_an_item_that_is_everybody_s_negative_is_named(queries: int, uses: int, said: bool) -> None:
    changed = figures(queries=queries)
    changed["reuse"]["most_used"][0]["uses"] = uses
    found = warnings(changed, SETTINGS)
    assert len(found) == said
    assert all(word in text for text in found for word in ("i7 (Seven)", f"{uses} of {queries:,}", "mining.max_uses"))


def test_a_cap_on_uses_is_named_where_queries_are_short() -> None:
    found = warnings(figures(queries_short=90), MiningSettings(num_negatives=10, max_uses=3))
    assert len(found) == 1
    assert "raise mining.max_uses" in found[0]


def test_the_waterfall_goes_from_all_candidates_to_what_is_left() -> None:
    steps = waterfall(figures())
    assert steps == [
        ("candidates", 10_000, 1.0),
        ("− positive", 100, 0.01),
        ("− rule:genres:disjoint", 1500, 0.15),
        ("− relative_margin", 400, 0.04),
        ("left", 8_000, 0.8),
    ]
    assert steps[0][1] - sum(count for _, count, _ in steps[1:-1]) == steps[-1][1]


def test_the_page_says_the_answer_first_and_shows_everything() -> None:
    sample = {
        "query_id": "q_1",
        "query": "a *bold*\nquestion",
        "relevant_total": 3,
        "relevant": [{"item_id": "i1", "text": "right | so", "score": 0.5}],
        "negatives": [
            {"item_id": "i2", "text": "<b>wrong</b>", "score": 0.75, "position": 3, "source": "model", "suspected": True},
            {"item_id": "i3", "text": "judged", "score": 0.25, "position": -1, "source": "judged", "suspected": False},
        ],
    }
    confusion = {"column": "genres", "values": ["crime", "(none)"], "counts": [[30, 10], [0, 0]]}
    page = markdown("shop, round-01-mine", figures(samples=[sample], confusion=confusion, warnings=["beware"]), SETTINGS)
    lines = page.splitlines()
    assert lines[0] == "# Negatives: shop, round-01-mine"
    assert lines[2].startswith("**Hit rate 80.0%: 8,000 of 10,000 candidates")
    assert "- beware" in lines
    assert "| − rule:genres:disjoint | 1,500 | 15.0% |" in lines
    assert "| crime | 40 | 75% | 25% |" in lines
    assert not any(line.startswith("| (none) |") for line in lines), "a row without a count is no row"
    assert "| i7 | Seven | 4 | 4.0% |" in lines
    assert "| new since the round before | 400 | 40.4% |" in lines
    assert "### 1. a \\*bold\\* question" in lines
    assert "- 0.500 right \\| so (i1)" in lines
    assert "- and 2 more" in lines
    assert "- [ ] 0.750 **!** (model, position 3) \\<b\\>wrong\\</b\\> (i2)" in lines
    assert "- [ ] 0.250 (judged) judged (i3)" in lines
    assert markdown("x", figures(), SETTINGS).count("Nothing is unusual.") == 1
    calibrated = markdown("x", figures(cuts={"relative": 0.12345, "absolute": None, "ceiling": 0.75}), SETTINGS)
    assert "Cuts found for this model: relative 0.1235, ceiling 0.7500." in calibrated.splitlines()


def test_a_text_stays_one_plain_line() -> None:
    assert plain("a\n# b | `c` [d](e)") == "a \\# b \\| \\`c\\` \\[d\\](e)"
