"""Warnings about a mining: none where nothing is unusual, else the numbers and settings that can still be changed."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from mining.report.figures import MiningFigures
from mining.report.warnings import warnings
from mining.settings import MiningSettings, Rule, SearchSettings, TeacherSettings
from tests.support.mining_figures import figures_of

SETTINGS = MiningSettings(num_negatives=10)


def advice(figures: MiningFigures, settings: MiningSettings) -> list[str]:
    return [warned.advice for warned in warnings(figures, settings)]


def test_a_usual_mining_has_no_warning() -> None:
    assert advice(figures_of(), SETTINGS) == []


def test_a_few_equal_scores_of_a_teacher_are_no_warning() -> None:
    assert advice(figures_of(teacher_read=2000, teacher_tied=100), SETTINGS) == []


@pytest.mark.parametrize(
    ("changed", "settings", "words"),
    [
        (
            {"hit_rate": 0.04, "dropped": {"positive": 9_000, "max_score": 400, "min_score": 200}},
            {"max_score": 0.7, "min_score": 0.1},
            ["hit rate 4.0% is below 10%", "max_score dropped most, 400 of 10,000 candidates: raise mining.max_score (now 0.7)"],
        ),
        (
            {"hit_rate": 0.04, "dropped": {"teacher:unread": 9, "relative_margin": 3}},
            {"teacher": TeacherSettings(model="m")},
            ["raise mining.teacher.depth"],
        ),
        (
            {"hit_rate": 0.04, "dropped": {"rule:genres:disjoint": 9}},
            {"rules": (Rule(column="genres", keep="disjoint"),)},
            ["loosen mining.rules (column genres)"],
        ),
        (
            {"queries_short": 21, "queries_empty": 3, "dropped_short": {"positive": 70, "relative_margin": 60, "min_score": 5}},
            {"min_score": 0.0},
            [
                "21 of 100 queries have fewer than 10 negatives, 3 of them none at all",
                "relative_margin dropped most of their candidates (60): lower mining.relative_margin (now 0.05)",
                'set mining.margin_reference = "highest"',
                "raise mining.num_hits (now 100)",
                "lower mining.num_negatives",
            ],
        ),
        (
            {"suspected_false_negatives": 1_001},
            {},
            ["1,001 of 10,000 candidates (10.0%", "more than 10%", "[mining.teacher]", "mining.near_duplicate"],
        ),
        (
            {"teacher_read": 2000, "teacher_tied": 900},
            {"teacher": TeacherSettings(model="m")},
            ["900 of the 2,000", "45.0%", "saturated", "mining.teacher.model"],
        ),
        (
            {"judged": 2_515, "judged_left_out": 109},
            {},
            ["109 of 2,624 items judged irrelevant are not used", "mining.num_negatives (10): raise mining.num_negatives"],
        ),
        ({"search": {"mode": "ivf", "recall": 0.973}}, {}, ["97.3%", "mode ivf", "mining.search.min_recall (now 0.95)"]),
    ],
)
def test_a_warning_has_its_numbers_and_the_setting(changed: dict[str, Any], settings: dict[str, Any], words: list[str]) -> None:
    texts = advice(figures_of(**changed), MiningSettings(num_negatives=10, **settings))
    assert len(texts) == 1
    for word in words:
        assert word in texts[0]


def test_where_all_candidates_are_relevant_that_is_the_warning_and_no_filter_is_blamed() -> None:
    known = {"positive": 9_980, "duplicate": 20, "self": 0, "relative_margin": 0}
    figures = figures_of(hit_rate=0.0, survivors=0, dropped=known, queries_short=100, queries_empty=100, dropped_short=known)
    rate, short = advice(figures, MiningSettings(num_negatives=10, near_duplicate=0.9))
    assert "9,980 of 10,000 candidates are relevant to their query by the labels: raise mining.num_hits (now 100)" in rate
    assert "near_duplicate" not in rate
    only = {"positive": 10_000, "duplicate": 0, "self": 0}
    figures = figures_of(hit_rate=0.0, survivors=0, dropped=only, queries_short=100, queries_empty=100, dropped_short=only)
    rate, short = advice(figures, MiningSettings(num_negatives=10, near_duplicate=0.9))
    assert "near_duplicate" not in rate + short
    assert "is relevant to its query by the labels" in short


def test_more_hits_are_not_proposed_where_the_teacher_reads_too_few() -> None:
    figures = figures_of(queries_short=90, dropped_short={"positive": 5, "teacher:unread": 800, "teacher": 20})
    texts = advice(figures, MiningSettings(num_negatives=10, teacher=TeacherSettings(model="m", depth=12)))
    assert len(texts) == 1
    assert "teacher:unread dropped most of their candidates (800): raise mining.teacher.depth (now 12)" in texts[0]
    assert "num_hits" not in texts[0]


def test_more_hits_are_not_proposed_where_the_corpus_has_no_more_items() -> None:
    only = {"positive": 10_000, "duplicate": 0, "self": 0}
    figures = figures_of(hit_rate=0.0, survivors=0, dropped=only, queries_short=100, queries_empty=100, dropped_short=only)
    figures = replace(figures, reuse=replace(figures.reuse, items=100))
    rate, short = advice(figures, SETTINGS)
    assert rate.endswith("candidates are relevant to their query by the labels, and the corpus has no other items")
    assert "num_hits" not in short
    assert "mining.num_negatives" not in short, "all of them have none at all"


def test_short_lists_without_any_dropped_candidate_blame_no_filter() -> None:
    figures = figures_of(
        queries_short=100, dropped={"positive": 0, "duplicate": 0}, dropped_short={"positive": 0, "duplicate": 0}
    )
    figures = replace(figures, reuse=replace(figures.reuse, items=5))
    assert advice(figures, SETTINGS) == ["100 of 100 queries have fewer than 10 negatives: lower mining.num_negatives"]


@pytest.mark.parametrize(
    ("queries", "uses", "warned"), [(100, 20, False), (100, 21, True), (1000, 100, False), (1000, 101, True), (1200, 66, False)]
)
def test_an_item_that_is_everybody_s_negative_is_named(queries: int, uses: int, warned: bool) -> None:
    figures = figures_of(queries=queries)
    most = [replace(figures.reuse.most_used[0], uses=uses)]
    texts = advice(replace(figures, reuse=replace(figures.reuse, most_used=most)), SETTINGS)
    assert len(texts) == warned
    assert all(word in text for text in texts for word in ("i7 (Seven)", f"{uses} of {queries:,}", "set mining.max_uses"))
    assert not any("nearly everything" in text for text in texts)


def test_a_cap_on_uses_is_named_where_queries_are_short() -> None:
    texts = advice(figures_of(queries_short=90), MiningSettings(num_negatives=10, max_uses=3))
    assert len(texts) == 1
    assert "raise mining.max_uses (now 3)" in texts[0]


EVERY_WARNING: dict[str, Any] = {
    "queries_short": 100,
    "suspected_false_negatives": 9_000,
    "search": {"mode": "ivf", "recall": 0.5},
}
SET: list[dict[str, Any]] = [
    {"max_uses": 1_000},
    {"near_duplicate": 0.9},
    {"teacher": TeacherSettings(model="m")},
    {"popularity": "sales", "choose": "uniform"},
    {"relative_margin": None, "positive_quantile": 0.5},
    {"relative_margin": None, "target_discard_rate": 0.5},
    {"num_negatives": 1},
    {"margin_reference": "highest"},
    {"search": SearchSettings(min_recall=0.9)},
]


@pytest.mark.parametrize("settings", SET)
def test_no_warning_proposes_what_is_set_already(settings: dict[str, Any]) -> None:
    figures = figures_of(**EVERY_WARNING)
    most = [replace(figures.reuse.most_used[0], uses=90)]
    figures = replace(figures, reuse=replace(figures.reuse, most_used=most))
    text = " ".join(advice(figures, MiningSettings(**{"num_negatives": 10} | settings)))
    for name in settings.keys() - {"num_negatives", "choose", "relative_margin", "search"}:
        assert f"set mining.{name}" not in text
        assert f"[mining.{name}]" not in text
    if settings.get("num_negatives") == 1:
        assert "mining.num_negatives" not in text
    if "relative_margin" in settings:
        assert "set mining.relative_margin" not in text
    if "choose" in settings:
        assert "mining.choose" not in text


def test_a_warning_itself_proposes_nothing() -> None:
    figures = figures_of(**EVERY_WARNING, hit_rate=0.04, dropped={"relative_margin": 9_000}, teacher_read=100, teacher_tied=90)
    figures = replace(figures, reuse=replace(figures.reuse, most_used=[replace(figures.reuse.most_used[0], uses=90)]))
    found = warnings(figures, SETTINGS)
    assert len(found) == 6
    for warned in found:
        assert re.search(r"\b(set|raise|lower|loosen|give another|ask a) ", warned.text) is None, warned.text
        assert warned.ways


def test_two_warnings_of_one_mining_do_not_turn_a_setting_both_ways() -> None:
    figures = figures_of(queries=100, queries_short=100)
    figures = replace(figures, reuse=replace(figures.reuse, most_used=[replace(figures.reuse.most_used[0], uses=30)]))
    short, used = warnings(figures, MiningSettings(num_negatives=10, max_uses=30))
    assert "raise mining.max_uses (now 30), which no filter's count shows" in short.ways
    assert not [way for way in used.ways if "mining.max_uses" in way]


def test_fewer_negatives_are_no_cure_for_queries_without_any() -> None:
    (empty,) = advice(figures_of(queries_short=30, queries_empty=30), SETTINGS)
    assert "30 of them none at all" in empty
    assert "num_negatives" not in empty.partition("none at all")[2]
    (some,) = advice(figures_of(queries_short=30, queries_empty=29), SETTINGS)
    assert "lower mining.num_negatives" in some
