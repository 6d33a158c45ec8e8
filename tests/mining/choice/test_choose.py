"""Choosing: worked by hand, against a slow reference, fair where it is random, and the same for every block size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.tables.tables import F32, I64
from mining.candidates import SOURCES, Candidates
from mining.choice.choose import Chosen, choose, popularity_log_weights, quotas_of
from mining.settings import MiningSettings, Source, TeacherSettings

NO_JUDGED = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
MODEL, BASELINE, BM25, EARLIER, JUDGED = range(5)


def candidates(rows: Any, self_rows: Any = None, **more: Any) -> Candidates:
    """One source, scores 0.9, 0.8, …"""
    rows_QK = np.array(rows, np.int64)
    scores = np.where(rows_QK >= 0, 0.9 - 0.1 * np.arange(rows_QK.shape[1]), -np.inf).astype(np.float32)
    none = np.full(len(rows_QK), np.nan, np.float32)
    return Candidates(
        **{
            "query_rows": np.arange(len(rows_QK)),
            "rows": rows_QK,
            "scores": scores,
            "lowest_positive": none,
            "mean_positive": none,
            "highest_positive": none,
            "excluded": np.zeros(len(rows_QK), np.int64),
            "self_rows": np.full(len(rows_QK), -1) if self_rows is None else np.array(self_rows, np.int64),
            "source": np.zeros(rows_QK.shape, np.uint8),
            "position": np.broadcast_to(np.arange(rows_QK.shape[1]), rows_QK.shape),
        }
        | more
    )


def part_of(found: Candidates, start: int, stop: int) -> Candidates:
    values = {field.name: getattr(found, field.name) for field in fields(Candidates)}
    return Candidates(**{name: None if value is None else value[start:stop] for name, value in values.items()})


def judged(*triples: tuple[int, int, float]) -> tuple[I64, I64, F32]:
    return (
        np.array([owner for owner, _, _ in triples], np.int64),
        np.array([row for _, row, _ in triples], np.int64),
        np.array([score for _, _, score in triples], np.float32),
    )


def taking(num_negatives: int, **settings: Any) -> MiningSettings:
    return MiningSettings(num_hits=1000, num_negatives=num_negatives, **settings)


def test_the_nearest_that_are_left_are_chosen() -> None:
    found = candidates([[10, 11, 12, 13], [20, 21, -1, -1]])
    alive = np.array([[1, 0, 1, 1], [0, 1, 0, 0]], bool)
    chosen = choose(found, alive, NO_JUDGED, taking(2), seed=0)
    assert chosen.rows.tolist() == [[10, 12], [21, -1]]
    assert chosen.positions.tolist() == [[0, 2], [1, -1]]
    assert chosen.scores.tolist() == [[np.float32(0.9), np.float32(0.7)], [np.float32(0.8), -np.inf]]
    assert np.isnan(chosen.teacher).all()
    assert not chosen.judged.any()


def test_items_judged_irrelevant_come_first_and_once_wherever_they_stand() -> None:
    teacher = np.arange(9, dtype=np.float32).reshape(3, 3)
    found = candidates([[10, 11, 12], [20, 21, 22], [30, 31, 32]], teacher=teacher)
    marks = judged((0, 12, 0.7), (0, 99, 0.1), (2, 98, 0.5))  # 12 is among the hits, 99 and 98 are not
    chosen = choose(found, found.rows >= 0, marks, taking(3), seed=0)
    assert chosen.rows.tolist() == [[12, 99, 10], [20, 21, 22], [98, 30, 31]]
    assert chosen.positions.tolist() == [[-1, -1, 0], [0, 1, 2], [-1, 0, 1]]
    assert chosen.judged.astype(int).tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 0]]
    assert np.nan_to_num(chosen.teacher, nan=-1).tolist() == [[-1, -1, 0], [3, 4, 5], [-1, 6, 7]]


def test_a_query_is_never_its_own_negative_even_if_judged_irrelevant() -> None:
    found = candidates([[10, 11]], self_rows=[5])
    chosen = choose(found, found.rows >= 0, judged((0, 5, 1.0), (0, 8, 0.5)), taking(3), seed=0)
    assert chosen.rows.tolist() == [[8, 10, 11]]


def test_random_choice_is_listed_best_first_and_follows_query_item_and_seed_only() -> None:
    queries, width, settings = 3000, 12, taking(4, choose="uniform")
    found = candidates([[100 * query + place for place in range(width)] for query in range(queries)])
    alive = found.rows >= 0
    alive[:, 5] = False
    chosen = choose(found, alive, NO_JUDGED, settings, seed=3)
    assert (np.diff(chosen.positions, axis=1) > 0).all()
    counts = np.bincount(chosen.positions.ravel(), minlength=width)
    want = queries * 4 / 11
    assert counts[5] == 0
    assert np.abs(np.delete(counts, 5) - want).max() < 5 * np.sqrt(want)
    assert (choose(found, alive, NO_JUDGED, settings, seed=4).rows != chosen.rows).mean() > 0.5
    half = choose(part_of(found, 1000, 3000), alive[1000:], NO_JUDGED, settings, seed=3)
    assert np.array_equal(half.rows, chosen.rows[1000:])


def inclusion(weights: Sequence[float], count: int) -> np.ndarray:
    """How often each of some weights is among `count` drawn one after another without replacement: all orders."""
    result = np.zeros(len(weights))
    for order in permutations(range(len(weights)), count):
        chance, left = 1.0, sum(weights)
        for index in order:
            chance *= weights[index] / left
            left -= weights[index]
        result[list(order)] += chance
    return result


def frequencies(chosen: Chosen, width: int) -> np.ndarray:
    return np.bincount(chosen.positions.ravel(), minlength=width) / len(chosen.rows)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_softmax_choice_draws_by_weight_without_replacement(count: int) -> None:
    queries, temperature = 20_000, 0.1
    found = candidates(np.arange(queries * 4).reshape(queries, 4))
    chosen = choose(found, found.rows >= 0, NO_JUDGED, taking(count, choose="softmax", choice_temperature=temperature), seed=1)
    want = inclusion([math.exp(score / temperature) for score in (0.9, 0.8, 0.7, 0.6)], count)
    assert frequencies(chosen, 4) == pytest.approx(want, abs=5 * 0.5 / math.sqrt(queries))


@pytest.mark.parametrize("power", [1.0, -0.5])
def test_popular_items_are_taken_less_often_or_more(power: float) -> None:
    queries = 20_000
    found = candidates(np.tile(np.arange(6), (queries, 1)))
    popularity = np.array([1.0, 4.0, 16.0, 0.0, np.nan, 2.0])  # nothing known counts as the least that is known: 1
    settings = taking(2, choose="uniform", popularity="views", popularity_power=power)
    weights = popularity_log_weights(popularity, power)
    chosen = choose(found, found.rows >= 0, NO_JUDGED, settings, seed=1, log_weights=weights)
    want = inclusion([value**-power for value in (1, 4, 16, 1, 1, 2)], 2)
    assert frequencies(chosen, 6) == pytest.approx(want, abs=5 * 0.5 / math.sqrt(queries))


def test_items_of_unknown_popularity_only_are_all_alike() -> None:
    assert popularity_log_weights(np.array([0, 0, 0]), 0.5).tolist() == [0, 0, 0]
    assert popularity_log_weights(np.array([np.nan, -3.0, np.inf]), 0.5).tolist() == [0, 0, 0]


def test_quotas_follow_the_largest_remainder() -> None:
    assert quotas_of([0.5, 0.25, 0.25], 5).tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1], [2, 1, 1], [3, 1, 1]]
    assert quotas_of([1.0, 1.0], 3)[3].tolist() == [2, 1]  # a tie goes to the earlier source
    assert quotas_of([0.05, 0.95], 8)[8].tolist() == [0, 8]


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=4), st.integers(0, 40))
def test_quotas_add_up_and_are_within_one_of_the_exact_share(shares: list[float], most: int) -> None:
    quotas = quotas_of(shares, most)
    assert quotas.sum(axis=1).tolist() == list(range(most + 1))
    exact = np.arange(most + 1)[:, None] * np.array(shares) / sum(shares)
    assert np.abs(quotas - exact).max() < 1 + 1e-9


HALVES = (Source(kind="model", share=0.5), Source(kind="bm25", share=0.5))


@pytest.mark.parametrize(
    ("source", "alive", "want"),
    [
        ([MODEL, MODEL, MODEL, BM25, BM25, BM25], [1, 1, 1, 1, 1, 1], [0, 1, 4, 5]),  # by their own lists: 5 and 4 are first
        ([MODEL, MODEL, MODEL, BM25, BM25, BM25], [0, 1, 1, 1, 1, 0], [1, 2, 3, 4]),
        ([MODEL, MODEL, MODEL, BM25, BM25, BM25], [1, 1, 1, 0, 0, 1], [0, 1, 2, 5]),  # what one lacks, the others give
        ([MODEL, BASELINE, BASELINE, BM25, MODEL, BASELINE], [1, 1, 1, 1, 0, 1], [0, 1, 2, 3]),
    ],
)
def test_each_source_gives_its_share_worked_by_hand(source: list[int], alive: list[int], want: list[int]) -> None:
    position = np.array([[0, 1, 2, 9, 4, 3]])
    found = candidates([[10, 11, 12, 13, 14, 15]], source=np.array([source], np.uint8), position=position)
    chosen = choose(found, np.array([alive], bool), NO_JUDGED, taking(4, sources=HALVES), seed=0)
    assert (chosen.rows[0] - 10).tolist() == want
    assert chosen.source[0].tolist() == [source[place] for place in want]
    assert chosen.positions[0].tolist() == position[0, want].tolist()


def test_shares_are_of_what_judged_items_leave() -> None:
    found = candidates([[10, 11, 12, 13]], source=np.array([[MODEL, MODEL, BM25, BM25]], np.uint8))
    chosen = choose(found, found.rows >= 0, judged((0, 7, 0.1), (0, 8, 0.0)), taking(4, sources=HALVES), seed=0)
    assert chosen.rows.tolist() == [[7, 8, 10, 12]]
    assert chosen.source.tolist() == [[JUDGED, JUDGED, MODEL, BM25]]


def test_an_item_that_is_used_up_makes_room_for_the_next_worked_by_hand() -> None:
    found = candidates([[1, 2, 3, 4], [1, 2, 3, 4], [2, 1, 4, -1], [1, 2, 3, 4]])
    uses = np.zeros(6, np.int32)
    settings = taking(2, max_uses=2)
    marks = judged((1, 5, 0.5), (2, 2, 0.5), (3, 5, 0.5))  # no limit holds for judged items, but they count
    chosen = choose(found, found.rows >= 0, marks, settings, seed=0, uses=uses)
    assert chosen.rows.tolist() == [[1, 2], [5, 1], [2, 4], [5, 3]]
    assert uses.tolist() == [0, 2, 2, 1, 1, 2]
    again = choose(found, found.rows >= 0, marks, settings, seed=0, uses=uses)
    assert again.rows.tolist() == [[3, 4], [5, -1], [2, -1], [5, -1]]
    assert uses.tolist() == [0, 2, 3, 2, 2, 4]


def test_queries_take_in_ascending_row_however_the_block_lists_them() -> None:
    found = candidates([[1, 2], [1, 3]], query_rows=np.array([9, 4]))
    chosen = choose(found, found.rows >= 0, NO_JUDGED, taking(1, max_uses=1), seed=0, uses=np.zeros(4, np.int32))
    assert chosen.rows.tolist() == [[2], [1]]


class World:
    """Random candidates of several sources, and what a slow choice takes of them."""

    def __init__(self, seed: int, queries: int = 6, width: int = 9, items: int = 14) -> None:
        rng = np.random.default_rng(seed)
        rows = np.stack([rng.permutation(items)[:width] for _ in range(queries)])
        rows[0, 4:] = -1
        source = rng.integers(0, 4, rows.shape).astype(np.uint8)
        position = np.argsort(rng.random(rows.shape), axis=1)
        query_rows = np.sort(rng.choice(1000, queries, replace=False))
        self.found = candidates(rows, rng.integers(-1, items, queries), source=source, position=position, query_rows=query_rows)
        self.alive = (rng.random(rows.shape) < 0.8) & (rows >= 0)
        marks = sorted({(int(q), int(i)) for q, i in rng.integers(0, [queries, items], (5, 2))})
        self.marks = judged(*((q, i, -0.1 * place) for place, (q, i) in enumerate(marks)))
        self.weights = popularity_log_weights(rng.integers(0, 5, items), 0.5)
        self.items = items

    def keys(self, query: int, settings: MiningSettings, seed: int) -> list[float]:
        found, result = self.found, []
        for place, row in enumerate(found.rows[query].tolist()):
            x = (int(found.query_rows[query]) * 0x9E3779B97F4A7C15 + row) % 2**64
            x = ((x ^ seed) * 0xBF58476D1CE4E5B9) % 2**64
            x = ((x ^ (x >> 29)) * 0x94D049BB133111EB) % 2**64
            uniform = (((x ^ (x >> 32)) >> 12) + 0.5) / 2**52
            weight = found.scores[query, place] / settings.choice_temperature if settings.choose == "softmax" else 0.0
            weight += self.weights[row] if settings.popularity else 0.0
            result.append(float(place) if settings.choose == "top" else math.log(-math.log1p(-uniform)) - float(weight))
        return result

    def slow(self, settings: MiningSettings, seed: int) -> list[list[int]]:
        found, uses, result = self.found, [0] * self.items, []
        for query, rows in enumerate(found.rows.tolist()):
            marks = [i for q, i in zip(*(side.tolist() for side in self.marks[:2]), strict=True) if q == query]
            marks = [item for item in marks if item != found.self_rows[query]]
            taken: list[int] = []
            first = marks[: settings.num_negatives]
            for item in first:
                uses[item] += 1
            room = settings.num_negatives - len(first)
            keys = self.keys(query, settings, seed)
            own = found.position[query].tolist() if settings.choose == "top" else keys
            quotas = quotas_of([source.share for source in settings.sources], room)[room].tolist()
            turns = [(kind.kind, count) for kind, count in zip(settings.sources, quotas, strict=True)]
            free = [
                place
                for place, row in enumerate(rows)
                if self.alive[query, place] and row not in marks and (not settings.max_uses or uses[row] < settings.max_uses)
            ]
            for kind, count in turns if len(turns) > 1 else []:
                mine = [place for place in free if SOURCES[found.source[query, place]] == kind]
                taken += sorted(mine, key=lambda place: own[place])[:count]
            rest = sorted(set(free) - set(taken), key=lambda place: keys[place])
            taken += rest[: room - len(taken)]
            for place in taken:
                uses[rows[place]] += 1
            listed = first + [rows[place] for place in sorted(taken)]
            result.append(listed + [-1] * (settings.num_negatives - len(listed)))
        return result


@given(
    st.integers(0, 10_000),
    st.sampled_from(["top", "uniform", "softmax"]),
    st.booleans(),
    st.integers(1, 4),
    st.sampled_from([None, 1, 2]),
    st.integers(1, 6),
)
def test_choosing_equals_the_slow_reference(
    seed: int, strategy: Any, popularity: bool, kinds: int, max_uses: int | None, count: int
) -> None:
    world = World(seed)
    settings = taking(
        count,
        choose=strategy,
        max_uses=max_uses,
        sources=tuple(Source(kind=kind, share=0.2 + 0.2 * n) for n, kind in enumerate(SOURCES[:kinds])),
        popularity="views" if popularity and strategy != "top" else None,
    )
    weights = world.weights if settings.popularity else None
    uses = None if max_uses is None else np.zeros(world.items, np.int32)
    chosen = choose(world.found, world.alive, world.marks, settings, 5, log_weights=weights, uses=uses)
    assert chosen.rows.tolist() == world.slow(settings, 5)
    real = chosen.rows >= 0
    assert (real[:, :-1] >= real[:, 1:]).all()
    if uses is not None:
        assert uses.tolist() == np.bincount(chosen.rows[real], minlength=world.items).tolist()


@pytest.mark.parametrize("strategy", ["top", "uniform", "softmax"])
@pytest.mark.parametrize("max_uses", [None, 2])
def test_the_choice_does_not_depend_on_the_block_size(strategy: Any, max_uses: int | None) -> None:
    world = World(11, queries=40, width=20, items=60)
    settings = taking(5, choose=strategy, max_uses=max_uses, sources=HALVES)
    results = []
    for block in (1, 7, 40):
        uses, rows = np.zeros(60, np.int32), []
        for start in range(0, 40, block):
            owner = world.marks[0]
            some = (owner >= start) & (owner < start + block)
            marks = (owner[some] - start, world.marks[1][some], world.marks[2][some])
            chosen = choose(
                part_of(world.found, start, start + block), world.alive[start : start + block], marks, settings, seed=2, uses=uses
            )
            rows += chosen.rows.tolist()
        results.append((rows, uses.tolist()))
    assert results[0] == results[1] == results[2]
    rows, counted = np.array(results[0][0]), results[0][1]
    assert counted == np.bincount(rows[rows >= 0], minlength=60).tolist()  # counted without a limit, too
    if max_uses:
        assert max(results[0][1]) <= max_uses + len(world.marks[0])
        assert min(len([row for row in line if row >= 0]) for line in results[0][0]) < 5  # the limit was felt


def test_what_the_settings_need_cannot_be_forgotten() -> None:
    found = candidates([[1, 2]])
    for settings in ({"max_uses": 1}, {"choose": "uniform", "popularity": "views"}):
        with pytest.raises(AssertionError):
            choose(found, found.rows >= 0, NO_JUDGED, taking(1, **settings), seed=0)


def stratified(found: Candidates, count: int, marks: Any = NO_JUDGED) -> list[list[int]]:
    settings = taking(count, choose="stratified", teacher=TeacherSettings(model="m"))
    alive = (found.rows >= 0) & ~np.isnan(found.teacher)  # what the teacher has not read is dropped before
    return [[row for row in rows if row >= 0] for rows in choose(found, alive, marks, settings, seed=0).rows.tolist()]


def test_a_stratified_choice_takes_the_nearest_of_each_stratum_of_the_teachers_scores() -> None:
    #                     strata of 4: 0.75–1.0 first … 0–0.25 last
    teacher = np.array([[0.9, 1.0, 0.8, 0.0, 0.1, 0.6, np.nan, 0.95]], np.float32)
    found = candidates([[10, 11, 12, 13, 14, 15, 16, 17]], teacher=teacher)
    assert stratified(found, 4) == [[10, 11, 13, 15]], "10 and then 11 of the highest; the third stratum is empty"
    assert stratified(found, 3) == [[10, 13, 15]]
    assert stratified(found, 2) == [[10, 13]]
    assert stratified(found, 7) == [[10, 11, 12, 13, 14, 15, 17]], "all that were read"
    same = candidates([[10, 11, 12]], teacher=np.full((1, 3), 0.5, np.float32))
    assert stratified(same, 2) == [[10, 11]], "no range: the nearest"
    assert stratified(candidates([[10, -1]], teacher=np.array([[np.nan, np.nan]], np.float32)), 2) == [[]]


@given(st.integers(0, 5000), st.integers(1, 9))
def test_a_stratified_choice_equals_a_slow_reference(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    rows = np.where(rng.random((5, 14)) < 0.1, -1, np.arange(14) + 100 * np.arange(5)[:, None])
    teacher = np.where(rng.random(rows.shape) < 0.2, np.nan, rng.normal(size=rows.shape).round(1)).astype(np.float32)
    found = candidates(rows, teacher=teacher)
    want = []
    for row, scores in zip(rows, teacher, strict=True):
        read = [place for place in range(14) if row[place] >= 0 and not np.isnan(scores[place])]
        high, low = max((float(scores[p]) for p in read), default=0), min((float(scores[p]) for p in read), default=0)
        strata: dict[int, list[int]] = {}
        for place in read:
            share = (high - float(scores[place])) / (high - low) if high > low else 0.0
            strata.setdefault(min(count - 1, int(share * count)), []).append(place)
        turns = [(turn, number, place) for number, places in strata.items() for turn, place in enumerate(places)]
        want.append(sorted(int(row[place]) for _, _, place in sorted(turns)[:count]))
    assert stratified(found, count) == want
