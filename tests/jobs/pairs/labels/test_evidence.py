"""COEC and its alternatives by hand, and how conflicts are resolved."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.pairs.labels.evidence import Evidence, evidence, positions, resolve
from jobs.pairs.sessions.stage import COUNTED

SHOWN, USED = np.array([0, 1000, 1000, 1000]), np.array([0, 400, 100, 40])


def test_coec_expects_the_click_rate_of_each_position() -> None:
    at = positions(SHOWN, USED, "coec")
    assert at.expected.tolist() == pytest.approx([0.18, 0.4, 0.1, 0.04], rel=0.04), "ten impressions at the average are added"
    assert at.expected[1] == (400 + 10 * 0.18) / 1010
    assert at.weight.tolist() == [1, 1, 1, 1]


def test_without_correction_every_position_expects_the_average() -> None:
    at = positions(SHOWN, USED, "off")
    assert at.expected.tolist() == pytest.approx([0.18] * 4)


def test_propensities_are_relative_to_the_first_position_and_clipped() -> None:
    at = positions(np.array([0, 1000, 1000, 1000]), np.array([0, 400, 100, 4]), "ipw")
    assert at.weight[1:].tolist() == pytest.approx([1, 4, 10], rel=0.03)
    assert at.expected[1] == pytest.approx((400 + at.weight[2] * 100 + 10 * 4) / 3000)


def test_a_position_that_was_hardly_shown_is_near_the_average() -> None:
    at = positions(np.array([0, 1000, 1]), np.array([0, 400, 1]), "coec")
    assert at.expected[2] == pytest.approx(0.4, abs=0.06)


def rates(clicks: float, expected: float, **counts: float) -> dict[str, float]:
    """Signal -> weight of one pair."""
    sources: list[str] = []
    every = {name: np.array([counts.get(name, 0.0)]) for name in COUNTED} | {"click": np.array([clicks])}
    found = evidence(every, np.array([expected]), np.array([clicks]), {}, sources)
    return {sources[source]: weight for source, weight in zip(found.source.tolist(), found.weight.tolist(), strict=True)}


def test_equal_clicks_say_more_at_a_lower_position() -> None:
    assert rates(4, 10) == {"not_clicked": pytest.approx(0.4 * 10 / 11)}, "four clicks where ten are usual"
    assert rates(4, 1) == {"click": pytest.approx(0.5 * 4 / 5)}


def test_few_impressions_prove_nothing() -> None:
    assert rates(0, 0.4) == {}
    assert rates(0, 40) == {"not_clicked": pytest.approx(0.4 * 40 / 41)}


def test_what_was_used_once_is_not_skipped() -> None:
    assert rates(0, 0.4, skipped=3) == {"skipped": pytest.approx(0.4 * 3 / 4)}
    assert "skipped" not in rates(1, 4.0, skipped=3)


def test_most_of_those_who_click_must_come_back_for_a_quick_return() -> None:
    assert "quick_return" in rates(1, 1.0, quick_return=2)
    assert "quick_return" not in rates(2, 1.0, quick_return=2)


def pieces(*rows: tuple[int, float, float, int]) -> Evidence:
    pair, grade, weight, source = (np.array(column) for column in zip(*rows, strict=True))
    return Evidence(pair, grade.astype(float), weight.astype(float), source)


def test_the_heavier_side_wins_and_pays_for_the_other() -> None:
    got = resolve(pieces((0, 3, 1.0, 0), (0, 0, 0.4, 1), (1, 1, 0.3, 2), (1, 0, 0.5, 3), (2, 2, 0.8, 1)))
    assert got.score.tolist() == [3, 0, 2]
    assert got.weight.tolist() == pytest.approx([0.6, 0.2, 0.8])
    assert got.source.tolist() == [0, 3, 1]
    assert got.conflicts["relevant won"] == got.conflicts["irrelevant won"] == 1
    assert got.several == 2


def test_an_even_conflict_and_a_whisper_are_dropped_and_counted() -> None:
    got = resolve(pieces((0, 1, 0.5, 0), (0, 0, 0.5, 1), (1, 1, 0.01, 0)))
    assert got.pair.tolist() == []
    assert got.conflicts["even, dropped"] == got.conflicts["too little evidence, dropped"] == 1


def test_the_order_of_the_evidence_does_not_matter() -> None:
    random = np.random.default_rng(3)
    rows = [
        (int(random.integers(20)), float(random.integers(4)), float(random.integers(1, 9)) / 8, int(random.integers(5)))
        for _ in range(200)
    ]
    want = resolve(pieces(*rows))
    got = resolve(pieces(*(rows[n] for n in random.permutation(200))))
    for name in ("pair", "score", "weight", "source"):
        assert getattr(got, name).tolist() == getattr(want, name).tolist()
