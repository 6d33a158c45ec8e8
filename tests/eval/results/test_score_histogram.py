"""Histograms of scores count every score once and keep their order."""

from __future__ import annotations

import numpy as np

from eval.results.score_histogram import score_figures


def test_every_finite_score_is_counted_once_in_its_bin() -> None:
    got = score_figures(
        {
            "positive": np.array([-1.0, -0.951, 0.0, 0.049, 0.05, 1.0, 1.0000001, np.nan], np.float32),
            "hard": np.array([0.3, -np.inf]),
            "random": np.zeros(0),
        }
    )
    assert got["edges"][0] == -1
    assert got["edges"][20:22] == [0, 0.05]
    assert len(got["edges"]) == 41
    assert [len(got[kind]) for kind in ("positive", "hard", "random")] == [40] * 3
    assert [got["positive"][n] for n in (0, 20, 39)] == [2, 2, 2], "what rounding puts past 1 is in the last bin"
    assert [sum(got[kind]) for kind in ("positive", "hard", "random")] == [7, 1, 0]
    assert got["percentiles"].keys() == {"positive", "hard"}, "no scores, no percentiles"
    assert got["percentiles"]["hard"] == dict.fromkeys(("p5", "p25", "p50", "p75", "p95"), 0.3)


def test_percentiles_ascend_and_are_numpys() -> None:
    scores = np.random.default_rng(0).uniform(-1, 1, 1000)
    got = score_figures({"random": scores})["percentiles"]["random"]
    assert list(got.values()) == np.percentile(scores, [5, 25, 50, 75, 95]).tolist()
