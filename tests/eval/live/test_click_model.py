"""The click model against a simulated world whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from cluster.tables.tables import I64
from eval.live.click_model import PRIOR, ClickModel, Showings, fit_click_model, forecast_clicks

EXAMINED = np.array([1.0, 0.6, 0.4, 0.3, 0.2])
QUERIES, ITEMS, SHOWN = 60, 12, 5


def counted(pair: I64, position: I64, clicked: I64) -> Showings:
    """One row for each pair at each position."""
    keys, inverse = np.unique(np.stack([pair, position]), axis=1, return_inverse=True)
    return Showings(keys[0], keys[1], np.bincount(inverse), np.bincount(inverse, clicked).astype(np.int64))


def simulate(rng: np.random.Generator, attracts: np.ndarray, sessions: int, *, shuffled: bool = True) -> Showings:
    """Queries whose ten best items are shown, in a slightly different order each time."""
    query = rng.integers(0, QUERIES, sessions)
    noise = rng.normal(0.0, 0.15 if shuffled else 0.0, (sessions, ITEMS))
    order = np.argsort(-(np.linspace(1, 0, ITEMS) + noise), axis=1)[:, :SHOWN]
    pair = query[:, None] * ITEMS + order
    clicked = rng.random(pair.shape) < EXAMINED * attracts[pair]
    position = np.broadcast_to(np.arange(SHOWN), pair.shape)
    return counted(pair.ravel(), position.ravel(), clicked.ravel().astype(np.int64))


def test_the_worth_of_positions_is_recovered() -> None:
    rng = np.random.default_rng(1)
    attracts = rng.beta(1, 3, QUERIES * ITEMS)
    model = fit_click_model(simulate(rng, attracts, 40_000))
    assert model.fitted
    np.testing.assert_allclose(model.examined, EXAMINED, atol=0.05)


def test_the_true_difference_of_two_rankings_lies_in_its_interval() -> None:
    inside = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        attracts = rng.beta(1, 3, QUERIES * ITEMS)
        log = simulate(rng, attracts, 6_000)
        model = fit_click_model(log)
        a = np.arange(QUERIES)[:, None] * ITEMS + np.arange(SHOWN)
        b = np.arange(QUERIES)[:, None] * ITEMS + rng.permuted(np.tile(np.arange(8), (QUERIES, 1)), axis=1)[:, :SHOWN]
        padded = np.append(model.attracts, np.zeros(QUERIES * ITEMS - len(model.attracts)))
        forecast = forecast_clicks(ClickModel(model.examined, padded, model.mean, model.fitted), a, b, np.ones(QUERIES))
        truth = float(((attracts[b] - attracts[a]) * EXAMINED).sum(axis=1).mean())
        inside += forecast.low <= truth <= forecast.high
    assert inside >= 54  # 95 % are 57; fewer than 54 of 60 has a probability below 3 %


def test_positions_are_assumed_where_no_item_was_shown_at_two() -> None:
    rng = np.random.default_rng(2)
    log = simulate(rng, np.full(QUERIES * ITEMS, 0.3), 5_000, shuffled=False)
    assert log.linked == 0.0
    model = fit_click_model(log)
    assert not model.fitted
    np.testing.assert_allclose(model.examined, 1 / np.arange(1, SHOWN + 1), atol=1e-12)


def test_a_pair_shown_once_and_clicked_is_no_certainty() -> None:
    log = Showings(np.array([0, 1]), np.array([0, 0]), np.array([1, 1_000]), np.array([1, 100]))
    model = fit_click_model(log)
    assert model.attracts[0] == pytest.approx((1 + PRIOR * model.mean) / (1 + PRIOR), abs=0.02)
    assert model.attracts[1] == pytest.approx(0.1, abs=0.005)


def test_the_forecast_says_what_was_never_shown() -> None:
    model = ClickModel(np.array([1.0, 0.5]), np.array([0.4, 0.2]), 0.3, True)
    a, b = np.array([[0, 1]]), np.array([[1, -1]])
    forecast = forecast_clicks(model, a, b, np.ones(1))
    assert forecast.a == pytest.approx(0.4 + 0.5 * 0.2)
    assert forecast.b == pytest.approx(0.2 + 0.5 * 0.3)
    assert forecast.b_if_unwanted == pytest.approx(0.2)
    assert (forecast.known_a, forecast.known_b) == (1.0, pytest.approx(1 / 1.5))
    shorter = forecast_clicks(model, a, np.array([[0, -2]]), np.ones(1))
    assert shorter.b == pytest.approx(0.4)
    assert shorter.known_b == 1.0


def test_traffic_weighs_the_queries() -> None:
    model = ClickModel(np.ones(1), np.array([1.0, 0.0]), 0.5, True)
    forecast = forecast_clicks(model, np.array([[1], [1]]), np.array([[0], [1]]), np.array([3.0, 1.0]))
    assert forecast.difference == pytest.approx(0.75)


def test_an_empty_log_is_refused() -> None:
    none = np.zeros(0, np.int64)
    with pytest.raises(ValueError, match="expected a log with showings"):
        fit_click_model(Showings(none, none, none, none))
