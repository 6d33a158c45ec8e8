"""Cuts found from histograms: worked by hand, against trying every margin, and the same for every block size."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.labels.labels import Labels
from cluster.tables.tables import F32
from mining.candidates import Candidates
from mining.choice.calibrate import BINS, Histogram, block_histogram, needs_calibration, resolve_cuts
from mining.choice.filters import Cuts, apply_filters, filters_before_cuts
from mining.settings import MiningSettings

NAN = float("nan")


def candidates(scores: list[list[float]] | F32, positive: list[float] | F32) -> Candidates:
    scores_QK, positive_Q = np.array(scores, np.float32), np.array(positive, np.float32)
    count, width = scores_QK.shape
    return Candidates(
        query_rows=np.arange(count),
        rows=np.tile(np.arange(width), (count, 1)),
        scores=scores_QK,
        lowest_positive=positive_Q,
        mean_positive=positive_Q + 0.125,
        highest_positive=positive_Q + 0.25,
        self_rows=np.full(count, -1),
        excluded=np.zeros(count, np.int64),
        source=np.zeros(scores_QK.shape, np.uint8),
        position=np.tile(np.arange(width), (count, 1)),
    )


def labels_of(found: Candidates, judged: list[tuple[int, int]] | None = None) -> Labels:
    """No item is relevant to any query; some are judged irrelevant."""
    pairs = sorted(judged or [])
    width = found.rows.shape[1]
    columns = {"query_row": [q for q, _ in pairs], "item_row": [i for _, i in pairs], "score": [0] * len(pairs)}
    table = pa.table({name: pa.array(values, pa.int64()) for name, values in columns.items()})
    return Labels.from_tables(table, pa.table({"group_code": [-1] * width, "text_code": range(width)}), len(found.rows))


def settings_of(**settings: Any) -> MiningSettings:
    return MiningSettings(**({"num_hits": 1000, "num_negatives": 1, "margin_reference": "lowest"} | settings))


def histogram_of(found: Candidates, labels: Labels, settings: MiningSettings, positives: Any = ()) -> Histogram:
    before = filters_before_cuts(found, labels, {}, settings)
    return block_histogram(found, before, settings, np.array(positives, np.float32))


def test_the_margin_that_drops_a_share_worked_by_hand() -> None:
    found = candidates([[0.9, 0.75, 0.6, 0.45, 0.3]], [1.0])  # dropped by margins above 0.1, 0.25, 0.4, 0.55, 0.7
    for target, low, high in ((0.2, 0.1, 0.25), (0.4, 0.25, 0.4), (0.5, 0.25, 0.4), (0.8, 0.55, 0.7)):
        settings = settings_of(target_discard_rate=target)
        cuts = resolve_cuts(settings, histogram_of(found, labels_of(found), settings))
        assert cuts.relative is not None
        assert low < cuts.relative <= high
        assert (cuts.absolute, cuts.ceiling) == (None, None)


def test_only_what_the_filters_before_left_is_counted() -> None:
    found = candidates([[0.9, 0.8, 0.7, 0.6, 0.5, 0.4]], [1.0])
    settings = settings_of(target_discard_rate=0.5, max_score=0.75)
    histogram = histogram_of(found, labels_of(found), settings)
    assert histogram.survivors == 4
    cuts = resolve_cuts(settings, histogram)
    assert apply_filters(found, labels_of(found), {}, settings, cuts=cuts).dropped["relative_margin"] == 2


@pytest.mark.parametrize(
    ("target", "low", "high", "dropped"),
    [
        (0.1, 0.0, 0.2, 2),  # two score above the relevant item, and any margin drops them
        (0.9, 0.6, 1.0, 5),  # the judged item and the two candidates of the other query cannot be dropped
    ],
)
def test_a_target_that_no_margin_reaches_gives_the_nearest_one(target: float, low: float, high: float, dropped: int) -> None:
    found = candidates([[0.9, 0.8, 0.4, 0.3, 0.2, 0.1], [0.9, 0.8, -1.0, -1.0, -1.0, -1.0]], [0.5, NAN])
    found.rows[1, 2:] = -1
    labels = labels_of(found, [(0, 5)])
    settings = settings_of(target_discard_rate=target)
    histogram = histogram_of(found, labels, settings)
    assert histogram.survivors == 8
    cuts = resolve_cuts(settings, histogram)
    assert cuts.relative is not None
    assert low <= cuts.relative < high
    assert apply_filters(found, labels, {}, settings, cuts=cuts).dropped["relative_margin"] == dropped


def test_without_candidates_or_relevant_items_nothing_is_cut() -> None:
    settings = settings_of(target_discard_rate=0.5, positive_quantile=0.5)
    assert resolve_cuts(settings, Histogram()).ceiling is None
    found = candidates([[0.9, 0.8]], [NAN])
    cuts = resolve_cuts(settings, histogram_of(found, labels_of(found), settings))
    assert apply_filters(found, labels_of(found), {}, settings, cuts=cuts).alive.all()


def random_found(seed: int, queries: int = 40) -> Candidates:
    """Positive and negative scores, relevant items at 0, and queries without any."""
    rng = np.random.default_rng(seed)
    positive = rng.uniform(-0.3, 0.9, queries).astype(np.float32)
    positive[::7], positive[1::11] = NAN, 0.0
    return candidates(-np.sort(-rng.uniform(-1, 1, (queries, 50)).astype(np.float32), axis=1), positive)


@pytest.mark.parametrize("reference", ["lowest", "mean", "highest"])
@pytest.mark.parametrize("target", [0.05, 0.3, 0.6, 0.8])
def test_no_other_margin_comes_nearer_to_the_target(target: float, reference: Any) -> None:
    found = random_found(3)
    labels = labels_of(found, [(q, (7 * q) % 50) for q in range(0, 40, 3)])
    settings = settings_of(target_discard_rate=target, margin_reference=reference)
    cuts = resolve_cuts(settings, histogram_of(found, labels, settings))

    def missed(margin: float) -> float:
        filtered = apply_filters(found, labels, {}, settings, cuts=Cuts(margin, None, None))
        return abs(filtered.dropped["relative_margin"] / filtered.candidates - target)

    assert cuts.relative is not None
    assert 0 <= cuts.relative < 1
    best = min(missed(margin / BINS) for margin in range(0, BINS, 20))
    assert missed(cuts.relative) <= best + 1e-9


def test_the_cuts_do_not_depend_on_how_queries_are_cut_into_blocks() -> None:
    found = random_found(4)
    labels = labels_of(found)
    settings = settings_of(target_discard_rate=0.4, positive_quantile=0.3)
    scores = np.random.default_rng(0).uniform(-1, 1, (40, 3)).astype(np.float32)
    results = []
    for block in (1, 7, 40):
        total = Histogram()
        for start in range(0, 40, block):
            some = {field.name: getattr(found, field.name) for field in fields(Candidates)}
            part = Candidates(**{name: value if value is None else value[start : start + block] for name, value in some.items()})
            total.add(histogram_of(part, labels, settings, scores[start : start + block].ravel()))
        results.append((total.survivors, total.margins.tolist(), total.positives.tolist(), resolve_cuts(settings, total)))
    assert results[0] == results[1] == results[2]
    assert results[0][0] == total.margins.sum() == 40 * 50


@pytest.mark.parametrize(("share", "want"), [(0.25, 0.2), (0.5, 0.4), (0.6, 0.6), (0.99, 0.8)])
def test_the_ceiling_is_a_quantile_of_all_relevant_scores(share: float, want: float) -> None:
    settings = settings_of(positive_quantile=share, relative_margin=0.1, absolute_margin=0.3)
    found = candidates([[0.5]], [0.9])
    cuts = resolve_cuts(settings, histogram_of(found, labels_of(found), settings, [0.2, 0.8, NAN, 0.4, 0.6]))
    assert cuts.ceiling is not None
    assert want <= cuts.ceiling <= want + 1.01e-4
    assert (cuts.relative, cuts.absolute) == (0.1, 0.3)


@pytest.mark.parametrize("seed", range(4))
def test_the_ceiling_equals_the_sorted_scores(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.uniform(-1.0, 1.0, 1 + 50 * seed).astype(np.float32)
    scores[0] = 1.0000001  # a cosine of rounded vectors
    found = candidates([[0.5]], [0.9])
    for share in (0.01, 0.5, 0.99):
        settings = settings_of(positive_quantile=share)
        ceiling = resolve_cuts(settings, histogram_of(found, labels_of(found), settings, scores)).ceiling
        want = np.quantile(scores, share, method="inverted_cdf")
        assert ceiling is not None
        assert -1e-6 <= ceiling - min(1.0, want) <= 1.01e-4


def test_only_some_settings_need_a_pass_before() -> None:
    assert not needs_calibration(settings_of())
    assert needs_calibration(settings_of(target_discard_rate=0.5))
    assert needs_calibration(settings_of(positive_quantile=0.5))
    assert resolve_cuts(settings_of(absolute_margin=0.1), None) == Cuts(0.05, 0.1, None)
    with pytest.raises(AssertionError):
        resolve_cuts(settings_of(positive_quantile=0.5), None)
