"""Filters: worked by hand, counted once each, and against a slow reference."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cluster.labels.labels import Labels
from mining.candidates import Candidates
from mining.choice.attributes import Attribute
from mining.choice.filters import (
    ALIVE,
    PADDING,
    Cuts,
    Filtered,
    Near,
    apply_filters,
    cures,
    cut_above,
    cut_below,
    filters_before_cuts,
)
from mining.settings import MiningSettings, Rule, TeacherSettings

NAN = float("nan")


def candidates(rows: Any, scores: Any, positive: Any, self_rows: Any, **more: Any) -> Candidates:
    """One source; the only relevant score of a query is its lowest, mean and highest."""
    rows_QK, positive_Q = np.array(rows, np.int64), np.array(positive, np.float32)
    return Candidates(
        **{
            "query_rows": np.arange(len(rows_QK)),
            "rows": rows_QK,
            "scores": np.array(scores, np.float32),
            "lowest_positive": positive_Q,
            "mean_positive": positive_Q,
            "highest_positive": positive_Q,
            "self_rows": np.array(self_rows, np.int64),
            "excluded": np.zeros(len(rows_QK), np.int64),
            "source": np.zeros(rows_QK.shape, np.uint8),
            "position": np.broadcast_to(np.arange(rows_QK.shape[1]), rows_QK.shape),
        }
        | more
    )


def case() -> tuple[Candidates, Labels]:
    """One query; its candidates 0 … 7, best first.

    0 is the query itself, 1 relevant, 2 in the group of 1, 3 has the text of 1, 4 the text of 5, 6 judged irrelevant
    though in the group of 1, 7 plain.
    """
    labels = pa.table({"query_row": [0, 0], "item_row": [1, 6], "score": [1, 0]})
    items = pa.table({"group_code": [-1, 5, 5, -1, -1, -1, 5, -1], "text_code": [0, 1, 2, 1, 4, 4, 6, 7]})
    scores = [[1.0, 0.9, 0.88, 0.9, 0.86, 0.85, 0.7, 0.5, -np.inf]]
    found = candidates([[0, 1, 2, 3, 4, 5, 6, 7, -1]], scores, [0.9], [0])
    return found, Labels.from_tables(labels, items, 1)


def dropped_by(filtered: Filtered, query: int, column: int) -> str | None:
    """The filter that dropped a candidate; None: it is alive, or padding."""
    number = int(filtered.code[query, column])
    return None if number in (ALIVE, PADDING) else filtered.filters[number - 1]


def settings_of(**settings: Any) -> MiningSettings:
    return MiningSettings(**{"num_hits": 9, "num_negatives": 2, "relative_margin": None, "margin_reference": "lowest"} | settings)


def alive_rows(
    found: Candidates, labels: Labels, *, near: Near | None = None, cuts: Cuts | None = None, **settings: Any
) -> tuple[list[int], dict[str, int]]:
    filtered = apply_filters(found, labels, {}, settings_of(**settings), near=near, cuts=cuts)
    return found.rows[filtered.alive].tolist(), {name: count for name, count in filtered.dropped.items() if count}


ALWAYS = {"positive": 2, "duplicate": 2, "self": 1}


def test_filters_worked_by_hand() -> None:
    found, labels = case()
    assert alive_rows(found, labels) == ([4, 6, 7], ALWAYS)
    assert alive_rows(found, labels, relative_margin=0.05) == ([6, 7], ALWAYS | {"relative_margin": 1})  # above 0.855


@pytest.mark.parametrize(
    ("settings", "rows", "dropped"),
    [
        ({"min_score": 0.6}, [4, 6], {"min_score": 1}),
        ({"max_score": 0.6}, [6, 7], {"max_score": 1}),  # 6 scores above, but a person has spoken
        ({"absolute_margin": 0.03}, [4, 6, 7], {}),
        ({"absolute_margin": 0.05}, [6, 7], {"absolute_margin": 1}),
        ({"absolute_margin": 0.05, "relative_margin": 0.05}, [6, 7], {"relative_margin": 1}),  # the first that drops it counts
        ({"cuts": Cuts(None, None, 0.8)}, [6, 7], {"ceiling": 1}),
        ({"cuts": Cuts(0.05, None, None), "target_discard_rate": 0.1}, [6, 7], {"relative_margin": 1}),
        ({"skip_first": 5}, [6, 7], {"position": 1}),  # counted from the first candidate, dropped or not
        ({"skip_first": 4}, [4, 6, 7], {}),
        ({"skip_first": 8, "num_negatives": 1}, [6], {"position": 2}),
        ({"near": (np.array([0, 0]), np.array([7, 99]))}, [4, 6], {"duplicate": 3}),
        ({"near": (np.array([0]), np.array([6]))}, [4, 6, 7], {}),
    ],
)
def test_each_filter_takes_its_own_and_spares_what_a_person_judged(
    settings: dict[str, Any], rows: list[int], dropped: dict[str, int]
) -> None:
    found, labels = case()
    assert alive_rows(found, labels, **settings) == (rows, ALWAYS | dropped)


def test_the_query_itself_is_dropped_even_if_judged() -> None:
    found, labels = case()
    rows, dropped = alive_rows(replace(found, self_rows=np.array([6])), labels)
    assert 6 not in rows
    assert dropped["self"] == 1


def test_known_positives_that_the_search_left_out_count_as_candidates_that_were_dropped() -> None:
    found, labels = case()
    filtered = apply_filters(replace(found, excluded=np.array([3])), labels, {}, settings_of())
    assert filtered.candidates == 11
    assert filtered.dropped == {"positive": 5, "duplicate": 2, "self": 1}
    assert filtered.dropped_per_query()["positive"].tolist() == [5]


def test_the_teacher_drops_what_it_finds_relevant_and_what_it_has_not_read() -> None:
    found, labels = case()
    teacher = np.array([[NAN, NAN, NAN, NAN, 0.5, NAN, 0.99, NAN, NAN]], np.float32)
    read = replace(found, teacher=teacher, teacher_positive=np.array([0.6], np.float32))
    for cuts, rows, dropped in (
        ({"relative_margin": 0.1}, [4, 6], {"teacher:unread": 1}),  # 0.5 is below 0.54, and 6 was judged by a person
        ({"relative_margin": 0.2}, [6], {"teacher:unread": 1, "teacher": 1}),
        ({"relative_margin": None, "max_score": 0.4}, [6], {"teacher:unread": 1, "teacher": 1}),
        ({"relative_margin": 0.1, "max_score": 0.6}, [4, 6], {"teacher:unread": 1}),
    ):
        teacher_settings = TeacherSettings(model="m", **cuts)
        assert alive_rows(read, labels, teacher=teacher_settings) == (rows, ALWAYS | dropped)
        assert alive_rows(found, labels, teacher=teacher_settings) == ([4, 6, 7], ALWAYS)  # before it has read anything
    unknown = replace(read, teacher_positive=np.array([NAN], np.float32))
    assert alive_rows(unknown, labels, teacher=TeacherSettings(model="m"))[0] == [4, 6]


@pytest.mark.parametrize(("reference", "rows"), [("lowest", [6, 7]), ("mean", [5, 6, 7]), ("highest", [4, 5, 6, 7])])
def test_the_margin_is_taken_from_the_relevant_item_that_the_settings_name(reference: str, rows: list[int]) -> None:
    found, labels = case()
    found = replace(
        found,
        lowest_positive=np.array([0.84], np.float32),
        mean_positive=np.array([0.855], np.float32),
        highest_positive=np.array([0.87], np.float32),
    )
    labels = replace(labels, text_codes=np.arange(8))
    found.rows[0, 3] = -1
    assert alive_rows(found, labels, relative_margin=0.0, margin_reference=reference)[0] == rows


def test_rules_all_hold_and_are_counted_by_name() -> None:
    found, labels = case()
    attributes = {
        "kind": Attribute.from_column(pa.chunked_array([["x", "a", "a", "a", "a", "b", "a", "b"]])),
        "tags": Attribute.from_column(pa.chunked_array([[["p"], ["p", "q"], [], [], ["p"], [], [], ["r", "q"]]])),
    }
    one, other = Rule(column="kind", keep="different"), Rule(column="tags", keep="disjoint")
    for rules, rows, dropped in (
        ((one,), [6, 7], {"rule:kind:different": 1}),
        ((one, other), [6], {"rule:kind:different": 1, "rule:tags:disjoint": 1}),
        ((other, one), [6], {"rule:tags:disjoint": 2, "rule:kind:different": 0}),
    ):
        filtered = apply_filters(found, labels, attributes, settings_of(rules=rules))
        assert found.rows[filtered.alive].tolist() == rows
        assert {name: count for name, count in filtered.dropped.items() if name.startswith("rule")} == dropped
        assert [name for name in filtered.filters if name.startswith("rule")] == list(dropped)


def test_each_candidate_says_which_filter_dropped_it() -> None:
    found, labels = case()
    filtered = apply_filters(found, labels, {}, settings_of(relative_margin=0.05))
    assert [dropped_by(filtered, 0, place) for place in range(9)] == [
        "self",
        "positive",
        "positive",
        "duplicate",
        "relative_margin",
        "duplicate",
        None,
        None,
        None,
    ]


def test_unknown_items_above_the_best_relevant_one_are_suspected() -> None:
    found, labels = case()
    scores = found.scores.copy()
    scores[0, 4] = 0.95
    settings = settings_of(relative_margin=0.05)
    assert apply_filters(replace(found, scores=scores), labels, {}, settings).suspected == 1
    without = np.array([NAN], np.float32)
    filtered = apply_filters(replace(found, lowest_positive=without, highest_positive=without), labels, {}, settings)
    assert filtered.suspected == 0
    assert filtered.dropped["relative_margin"] == 0


def test_the_margin_is_right_for_negative_scores_too() -> None:
    got = cut_above(np.array([0.8, -0.8, 0.0, NAN], np.float32), 0.05)
    assert got.tolist() == pytest.approx([0.76, -0.84, 0.0, np.inf])
    assert got.dtype == np.float32
    got = cut_below(np.array([0.8, -0.8, 0.0, NAN], np.float32), 0.05)
    assert got.tolist() == pytest.approx([0.75, -0.85, -0.05, np.inf])
    assert got.dtype == np.float32


QUERIES, ITEMS, WIDTH = 3, 12, 8
EIGHTHS = np.arange(-8, 9) / 8  # numbers whose products with margins of quarters are exact


class World:
    """Random candidates, labels and attributes, as arrays and as sets."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.pairs = {(int(q), int(i)): int(rng.integers(0, 2)) for q, i in rng.integers(0, [QUERIES, ITEMS], (8, 2))}
        self.groups, self.texts = rng.integers(-1, 4, ITEMS), rng.integers(0, 9, ITEMS)
        ordered = sorted(self.pairs)
        self.labels = Labels.from_tables(
            pa.table(
                {
                    "query_row": [q for q, _ in ordered],
                    "item_row": [i for _, i in ordered],
                    "score": [self.pairs[pair] for pair in ordered],
                }
            ),
            pa.table({"group_code": self.groups, "text_code": self.texts}),
            QUERIES,
        )
        self.tags = [[str(tag) for tag in set(rng.integers(0, 5, rng.integers(0, 3)).tolist())] for _ in range(ITEMS)]
        self.kinds = rng.integers(0, 3, ITEMS).tolist()
        self.attributes = {
            "tags": Attribute.from_column(pa.chunked_array([self.tags])),
            "kind": Attribute.from_column(pa.chunked_array([self.kinds])),
        }
        rows = np.stack([rng.permutation(ITEMS)[:WIDTH] for _ in range(QUERIES)])
        rows[0, 6:] = -1
        positive = np.where(rng.random((3, QUERIES)) < 0.2, NAN, np.sort(rng.choice(EIGHTHS, (3, QUERIES)), axis=0))
        self.found = candidates(
            rows,
            -np.sort(-rng.choice(EIGHTHS, rows.shape), axis=1),
            positive[0],
            rng.integers(-1, ITEMS, QUERIES),
            mean_positive=positive[1].astype(np.float32),
            highest_positive=positive[2].astype(np.float32),
            excluded=rng.integers(0, 3, QUERIES),
            teacher=np.where(rng.random(rows.shape) < 0.2, NAN, rng.choice(EIGHTHS, rows.shape)).astype(np.float32),
            teacher_positive=np.where(rng.random(QUERIES) < 0.2, NAN, rng.choice(EIGHTHS, QUERIES)).astype(np.float32),
        )
        self.near = (rng.integers(0, QUERIES, 4), rng.integers(0, ITEMS, 4))

    def reason(self, query: int, place: int, settings: MiningSettings, cuts: Cuts) -> str | None:
        """One candidate at a time, in plain words."""
        found, row = self.found, int(self.found.rows[query, place])
        relevant = [i for (q, i), score in self.pairs.items() if q == query and score > 0]
        score = float(found.scores[query, place])
        s = float(found.positive(settings.margin_reference)[query])
        teacher, t = float(found.teacher[query, place]), float(found.teacher_positive[query])
        earlier = [self.texts[other] for other in found.rows[query, :place]]
        kept = [rule.keep for rule in settings.rules]
        tags = {tag for i in relevant for tag in self.tags[i]}
        tests = {
            "positive": row in relevant or (self.groups[row] >= 0 and self.groups[row] in [self.groups[i] for i in relevant]),
            "duplicate": self.texts[row] in [self.texts[i] for i in relevant]
            or self.texts[row] in earlier
            or (query, row) in set(zip(*(side.tolist() for side in self.near), strict=True)),
            "self": row == found.self_rows[query],
            "rule:tags:disjoint": "disjoint" in kept and bool(set(self.tags[row]) & tags),
            "rule:kind:equal": "equal" in kept and self.kinds[row] not in [self.kinds[i] for i in relevant],
            "min_score": score < settings.min_score,
            "max_score": score > settings.max_score,
            "relative_margin": cuts.relative is not None and score > s - abs(s) * cuts.relative,
            "absolute_margin": cuts.absolute is not None and score > s - cuts.absolute,
            "ceiling": cuts.ceiling is not None and score > cuts.ceiling,
            "position": place < settings.skip_first,
            "teacher:unread": np.isnan(teacher),
            "teacher": teacher > 0.75 or teacher > t - abs(t) * 0.25,
        }
        judged = self.pairs.get((query, row)) == 0
        return next((name for name, dropped in tests.items() if dropped and (name == "self" or not judged)), None)


@given(
    st.integers(0, 10_000),
    st.sampled_from(["lowest", "mean", "highest"]),
    st.sampled_from([None, 0.0, 0.25]),
    st.sampled_from([None, 0.125]),
    st.sampled_from([None, 0.5]),
)
def test_filters_equal_the_slow_reference(
    seed: int, reference: Any, relative: float | None, absolute: float | None, ceiling: float | None
) -> None:
    world, cuts = World(seed), Cuts(relative, absolute, ceiling)
    found = world.found
    settings = settings_of(
        min_score=-0.75,
        max_score=0.875,
        margin_reference=reference,
        skip_first=1 + seed % 2,
        rules=(Rule(column="tags", keep="disjoint"), Rule(column="kind", keep="equal"))[: seed % 3],
        teacher=TeacherSettings(model="m", max_score=0.75, relative_margin=0.25),
    )
    filtered = apply_filters(found, world.labels, world.attributes, settings, near=world.near, cuts=cuts)
    for (query, place), row in np.ndenumerate(found.rows):
        want = None if row < 0 else world.reason(query, place, settings, cuts)
        assert dropped_by(filtered, query, place) == want
        assert filtered.alive[query, place] == (row >= 0 and want is None)
    per_query = filtered.dropped_per_query()
    assert {name: int(counts.sum()) for name, counts in per_query.items()} == filtered.dropped
    alive = filtered.alive.sum(axis=1)
    assert (sum(per_query.values()) + alive).tolist() == ((found.rows >= 0).sum(axis=1) + found.excluded).tolist()
    assert filtered.candidates == sum(filtered.dropped.values()) + int(alive.sum())


def test_the_filters_before_the_cuts_are_the_first_of_all_filters() -> None:
    world = World(7)
    settings = settings_of(min_score=-0.5, relative_margin=0.25, skip_first=2, rules=(Rule(column="tags", keep="disjoint"),))
    before = filters_before_cuts(world.found, world.labels, world.attributes, settings, near=world.near)
    after = apply_filters(world.found, world.labels, world.attributes, settings, near=world.near)
    assert before.filters == ("positive", "duplicate", "self", "rule:tags:disjoint", "min_score")
    assert after.filters == (*before.filters, "relative_margin", "position")
    assert np.array_equal(before.code[~before.alive], after.code[~before.alive])
    assert after.dropped["relative_margin"] > 0
    spared = [[world.pairs.get((query, row)) == 0 for row in line] for query, line in enumerate(world.found.rows.tolist())]
    assert before.spared.tolist() == spared


@pytest.mark.parametrize("seed", range(5))
def test_a_query_fares_the_same_whatever_block_it_is_in(seed: int) -> None:
    world = World(seed)
    settings = settings_of(
        min_score=-0.5,
        relative_margin=0.25,
        absolute_margin=0.25,
        rules=(Rule(column="tags", keep="disjoint"), Rule(column="kind", keep="different")),
    )
    whole = apply_filters(world.found, world.labels, world.attributes, settings, near=world.near)
    for query in range(QUERIES):
        parts = {field.name: getattr(world.found, field.name) for field in fields(Candidates)}
        one = Candidates(**{name: None if part is None else part[query : query + 1] for name, part in parts.items()})
        owner, items = world.near
        near = (owner[owner == query] * 0, items[owner == query])
        alone = apply_filters(one, world.labels, world.attributes, settings, near=near)
        assert alone.code.tolist() == whole.code[query : query + 1].tolist()


def test_cuts_that_must_be_found_first_cannot_be_forgotten() -> None:
    found, labels = case()
    with pytest.raises(AssertionError):
        apply_filters(found, labels, {}, settings_of(positive_quantile=0.5))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_negatives": 32, "num_hits": 10}, "raise num_hits to at least 128"),
        ({"num_negatives": 4, "num_hits": 10, "skip_first": 10}, "at most 0 candidates"),
        ({"min_score": 0.5, "max_score": 0.5}, "leaves nothing"),
    ],
)
def test_settings_that_leave_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MiningSettings(**settings)


TEACHER = TeacherSettings(model="m")


@pytest.mark.parametrize(
    ("name", "settings", "want"),
    [
        ("positive", {}, ["raise mining.num_hits (now 9)"]),
        ("self", {}, ["raise mining.num_hits (now 9)"]),
        ("duplicate", {}, ["take repeated texts out of the corpus"]),
        (
            "duplicate",
            {"near_duplicate": 0.9},
            ["raise mining.near_duplicate (now 0.9)", "take repeated texts out of the corpus"],
        ),
        ("rule:a:b:disjoint", {}, ["loosen mining.rules (column a:b)"]),
        ("min_score", {"min_score": 0.2}, ["lower mining.min_score (now 0.2)"]),
        ("max_score", {"max_score": 0.8}, ["raise mining.max_score (now 0.8)"]),
        (
            "relative_margin",
            {"relative_margin": 0.1},
            ["lower mining.relative_margin (now 0.1)", 'set mining.margin_reference = "mean" or "highest"'],
        ),
        (
            "relative_margin",
            {"relative_margin": 0.0, "margin_reference": "mean"},
            ['set mining.relative_margin = "off"', 'set mining.margin_reference = "highest"'],
        ),
        (
            "relative_margin",
            {"target_discard_rate": 0.5, "margin_reference": "highest"},
            ["lower mining.target_discard_rate (now 0.5)"],
        ),
        ("absolute_margin", {"absolute_margin": 0.1, "margin_reference": "highest"}, ["lower mining.absolute_margin (now 0.1)"]),
        ("ceiling", {"positive_quantile": 0.5}, ["raise mining.positive_quantile (now 0.5)"]),
        ("position", {"skip_first": 3}, ["lower mining.skip_first (now 3)"]),
        ("teacher:unread", {"teacher": TEACHER}, ["raise mining.teacher.depth (now 4)"]),
        ("teacher", {"teacher": TEACHER}, ["lower mining.teacher.relative_margin (now 0.05)"]),
        (
            "teacher",
            {"teacher": TEACHER.model_copy(update={"max_score": 0.1, "relative_margin": None})},
            ["raise mining.teacher.max_score (now 0.1)"],
        ),
    ],
)
def test_a_cure_names_the_setting_that_is_set_and_no_value_that_it_has(name: str, settings: Any, want: list[str]) -> None:
    assert cures(name, settings_of(**settings), num_items=100) == want


def test_a_lower_rate_is_no_cure_where_the_margin_is_at_its_lowest() -> None:
    settings = settings_of(target_discard_rate=0.5, margin_reference="highest")
    got = cures("relative_margin", settings, num_items=100, cuts=Cuts(0.0, None, None))
    assert got == ['remove mining.target_discard_rate and set mining.relative_margin = "off"']
    got = cures("relative_margin", settings, num_items=100, cuts=Cuts(0.1, None, None))
    assert got == ["lower mining.target_discard_rate (now 0.5)"]


def test_more_hits_cure_nothing_where_all_items_are_looked_at() -> None:
    assert cures("positive", settings_of(), num_items=9) == []


@pytest.mark.parametrize("seed", range(3))
def test_every_filter_has_a_cure(seed: int) -> None:
    world = World(seed)
    settings = settings_of(
        min_score=-0.75,
        max_score=0.875,
        skip_first=1,
        near_duplicate=0.9,
        relative_margin=0.05,
        absolute_margin=0.1,
        positive_quantile=0.5,
        rules=(Rule(column="tags", keep="disjoint"), Rule(column="kind", keep="equal")),
        teacher=TeacherSettings(model="m", max_score=0.75),
    )
    cuts = Cuts(0.05, 0.1, 0.9)
    filtered = apply_filters(world.found, world.labels, world.attributes, settings, near=world.near, cuts=cuts)
    assert len(filtered.filters) == 13
    for name in filtered.filters:
        assert cures(name, settings, num_items=100), name
