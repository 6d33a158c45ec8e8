"""Filters: worked by hand, counted once each, and against a slow reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cluster.labels import Labels
from mining.attributes import Attribute
from mining.filters import Candidates, apply_filters, cut_above, first_of_text
from mining.settings import MiningSettings, Rule

NAN = float("nan")


def case() -> tuple[Candidates, Labels]:
    """One query; its hits 0 … 7, best first.

    0 is the query itself, 1 relevant, 2 in the group of 1, 3 has the text of 1, 4 the text of 5, 6 judged irrelevant
    though in the group of 1, 7 plain.
    """
    labels = pa.table({"query_row": [0, 0], "item_row": [1, 6], "score": [1, 0]})
    items = pa.table({"group_code": [-1, 5, 5, -1, -1, -1, 5, -1], "text_code": [0, 1, 2, 1, 4, 4, 6, 7]})
    found = Candidates(
        query_rows=np.array([0]), rows=np.array([[0, 1, 2, 3, 4, 5, 6, 7, -1]]),
        scores=np.array([[1.0, 0.9, 0.88, 0.9, 0.86, 0.85, 0.7, 0.5, -np.inf]], np.float32),
        lowest_positive=np.array([0.9], np.float32), highest_positive=np.array([0.9], np.float32),
        self_rows=np.array([0]),
    )
    return found, Labels.from_tables(labels, items, 1)


def alive_rows(found: Candidates, labels: Labels, **settings: Any) -> tuple[list[int], dict[str, int]]:
    filtered = apply_filters(found, labels, {}, MiningSettings(num_hits=9, num_negatives=2, **settings))
    return found.rows[filtered.alive].tolist(), {name: count for name, count in filtered.dropped.items() if count}


def test_filters_worked_by_hand() -> None:
    found, labels = case()
    rows, dropped = alive_rows(found, labels, relative_margin=None)
    assert rows == [4, 6, 7]
    assert dropped == {"positive": 2, "duplicate": 2, "self": 1}
    rows, dropped = alive_rows(found, labels, relative_margin=0.05)  # cut above 0.855
    assert rows == [6, 7]
    assert dropped == {"positive": 2, "duplicate": 2, "self": 1, "relative_margin": 1}


@pytest.mark.parametrize(("settings", "rows", "dropped"), [
    ({"min_score": 0.6}, [4, 6], {"min_score": 1}),
    ({"max_score": 0.6}, [6, 7], {"max_score": 1}),  # 6 scores above, but a person has spoken
    ({"skip_first": 5}, [6, 7], {"position": 1}),
    ({"skip_first": 8}, [6], {"position": 2}),
])
def test_score_and_position_filters_spare_what_a_person_judged(
    settings: dict[str, Any], rows: list[int], dropped: dict[str, int],
) -> None:
    found, labels = case()
    got, counts = alive_rows(found, labels, relative_margin=None, **settings)
    assert got == rows
    assert {name: counts[name] for name in dropped} == dropped


def test_the_query_itself_is_dropped_even_if_judged() -> None:
    found, labels = case()
    rows, dropped = alive_rows(replace(found, self_rows=np.array([6])), labels, relative_margin=None)
    assert 6 not in rows
    assert dropped["self"] == 1


def test_rules_are_counted_by_name() -> None:
    found, labels = case()
    attribute = Attribute.from_column(pa.chunked_array([["x", "a", "a", "a", "a", "b", "a", "b"]]))
    settings = MiningSettings(num_hits=9, num_negatives=2, relative_margin=None,
                              rules=(Rule(column="kind", keep="different"),))
    filtered = apply_filters(found, labels, {"kind": attribute}, settings)
    assert filtered.dropped["rule:kind:different"] == 1
    assert found.rows[filtered.alive].tolist() == [6, 7]


def test_unknown_items_above_the_best_relevant_one_are_suspected() -> None:
    found, labels = case()
    scores = found.scores.copy()
    scores[0, 4] = 0.95
    settings = MiningSettings(num_hits=9, num_negatives=2)
    assert apply_filters(replace(found, scores=scores), labels, {}, settings).suspected == 1
    without = np.array([NAN], np.float32)
    filtered = apply_filters(replace(found, lowest_positive=without, highest_positive=without), labels, {}, settings)
    assert filtered.suspected == 0
    assert filtered.dropped["relative_margin"] == 0


def test_the_margin_is_right_for_negative_scores_too() -> None:
    got = cut_above(np.array([0.8, -0.8, 0.0, NAN], np.float32), 0.05)
    assert got.tolist() == pytest.approx([0.76, -0.84, 0.0, np.inf])
    assert got.dtype == np.float32


@given(st.lists(st.lists(st.integers(-1, 5), min_size=5, max_size=5), min_size=1, max_size=4))
def test_only_the_first_candidate_of_a_text_stays(rows: list[list[int]]) -> None:
    codes = np.array([0, 1, 0, 2, 1, 3])
    got = first_of_text(np.array(rows), codes)
    for line, fresh in zip(rows, got, strict=True):
        texts = [int(codes[row]) if row >= 0 else -1 for row in line]
        assert fresh.tolist() == [text not in texts[:place] for place, text in enumerate(texts)]


@given(st.integers(0, 10_000), st.booleans())
def test_every_candidate_is_alive_or_counted_as_dropped_once(seed: int, wide: bool) -> None:
    generator = np.random.default_rng(seed)
    queries, items, width = 3, 12, 8
    pairs = sorted({(int(q), int(i)) for q, i in generator.integers(0, [queries, items], (6, 2))})
    labels = Labels.from_tables(
        pa.table({"query_row": [q for q, _ in pairs], "item_row": [i for _, i in pairs],
                  "score": generator.integers(0, 2, len(pairs))}),
        pa.table({"group_code": generator.integers(-1, 3, items), "text_code": generator.integers(0, 8, items)}),
        queries)
    rows = np.stack([generator.permutation(items)[:width] for _ in range(queries)])
    rows[0, 5:] = -1
    scores = -np.sort(-generator.uniform(-1, 1, rows.shape).astype(np.float32), axis=1)
    positive = np.array([0.5, -0.2, NAN], np.float32)
    found = Candidates(np.arange(queries), rows, scores, positive, positive, np.array([-1, 3, 4]))
    settings = MiningSettings(num_hits=8, num_negatives=2, min_score=-0.5, max_score=0.9, skip_first=1 + wide)
    filtered = apply_filters(found, labels, {}, settings)
    assert filtered.candidates == int((rows >= 0).sum())
    assert filtered.candidates == int(filtered.alive.sum()) + sum(filtered.dropped.values())
    assert not filtered.alive[rows < 0].any()
    judged = {(q, i) for q, i in pairs if labels.judged_mask(np.array([q]), np.array([[i]])).any()}
    for query, place in np.argwhere(filtered.alive):
        row, score = int(rows[query, place]), scores[query, place]
        assert row != found.self_rows[query]
        if (query, row) in judged:
            continue
        assert not labels.known_mask(np.array([query]), np.array([row])).any()
        assert -0.5 <= score <= 0.9
        assert place >= settings.skip_first
        assert np.isnan(positive[query]) or score <= positive[query] - abs(positive[query]) * np.float32(0.05)


@pytest.mark.parametrize(("settings", "message"), [
    ({"num_negatives": 32, "num_hits": 10}, "raise num_hits to at least 128"),
    ({"num_negatives": 4, "num_hits": 10, "skip_first": 10}, "skips all"),
    ({"min_score": 0.5, "max_score": 0.5}, "leaves nothing"),
])
def test_settings_that_leave_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MiningSettings(**settings)
