"""How a search is done: pure figures to a choice."""

from __future__ import annotations

from itertools import product

import pytest

from cluster.errors import ConfigError
from mining.search.how import (
    LIKELY_SHARE,
    OVERSAMPLE,
    SHORT_S,
    Decision,
    How,
    Rate,
    Work,
    after_recall,
    aimed_recall,
    choose_how,
    estimates,
    exact_engine,
    exact_how,
    more_probes,
    probe_items,
)
from mining.search.ivf import SAMPLE_PER_LIST, TRAINING_ROUNDS
from mining.settings import SearchSettings

AUTO = SearchSettings()
CPU = {"faiss": Rate(1e-9, 0.0), "int8": Rate(8e-10, 0.0), "int8:likely": Rate(2e-10, 0.0)}
GPU = {"faiss": Rate(1e-9, 0.0), "torch": Rate(1e-11, 0.0), "half": Rate(4e-12, 0.0), "int8:likely": Rate(2e-10, 0.0)}


def test_seconds_worked_by_hand() -> None:
    assert Rate(2e-9, 1e-3).seconds(1000, 5_000_000) == pytest.approx(10.0 + 1.0)


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("rows", [4, 1000, 40_000, 10**7])
def test_an_engine_is_timed_on_two_numbers_of_items(rows: int, on_gpu: bool) -> None:
    few, many = probe_items(rows, on_gpu=on_gpu)
    assert 1 <= few <= many // 4 <= rows // 4
    assert (many >= 10**6) == (on_gpu and rows >= 10**6), "a GPU is timed at the scale of a shard"


@pytest.mark.parametrize(
    ("rates", "gpu", "want"),
    [
        (CPU, False, "int8"),
        (GPU, True, "half"),
        ({}, False, "faiss"),
        ({}, True, "torch"),
        ({"int8:likely": Rate(1e-12, 0.0)}, False, "faiss"),  # what is not certain is never exact
        ({"faiss": Rate(1e-9, 0.0), "int8": Rate(8e-10, 1.0)}, False, "faiss"),  # the time per query counts, too
    ],
)
def test_the_exact_engine_is_the_fastest_that_was_measured(rates: dict[str, Rate], gpu: bool, want: str) -> None:
    work = Work(queries=10_000, items=1_000_000, actors=1)
    assert exact_engine(AUTO, rates, work, gpu=gpu) == want
    assert exact_how(AUTO, rates, work, gpu=gpu) == How("exact", want, 2.0)  # type: ignore[arg-type]


def test_an_engine_set_by_hand_is_taken_however_slow() -> None:
    work = Work(queries=10_000, items=1_000_000, actors=1)
    for engine in ("faiss", "torch"):
        assert exact_engine(SearchSettings(engine=engine), CPU, work, gpu=False) == engine
        assert exact_engine(SearchSettings(engine=engine), GPU, work, gpu=True) == engine


def test_estimates_worked_by_hand() -> None:
    settings = SearchSettings(lists=1024)
    rates = {"faiss": Rate(1e-9, 1e-5), "int8:likely": Rate(2e-10, 2e-5)}
    got = estimates(settings, rates, Work(queries=100_000, items=2_000_000, actors=4), gpu=False)
    exact, sample = (200.0 + 1.0) / 4, (0.512 + 0.00256) / 4
    assert got["exact"] == pytest.approx(exact)
    assert got["two_stage"] == pytest.approx((40.0 + 2.0) / 4 + 2 * sample)
    train = 1e-9 * 1024 * SAMPLE_PER_LIST * 1024 * TRAINING_ROUNDS  # its one task does not share the pool
    build = 1e-9 * 2_000_000 * 1024 / 4
    read = 40.0 * LIKELY_SHARE * 2 / 4
    assert got["ivf"] == pytest.approx(train + build + read + 2.0 / 4 + 2 * sample)


def test_a_mode_whose_engine_was_not_measured_has_no_estimate() -> None:
    work = Work(queries=100_000, items=2_000_000, actors=1)
    assert estimates(AUTO, {}, work, gpu=False) == {}
    assert set(estimates(AUTO, {"faiss": Rate(1e-9, 0.0)}, work, gpu=False)) == {"exact"}
    assert set(estimates(AUTO, {"half": Rate(1e-11, 0.0), "torch": Rate(1e-10, 0.0)}, work, gpu=True)) == {"exact", "two_stage"}
    assert estimates(SearchSettings(engine="torch"), CPU, work, gpu=False) == {}  # torch was not measured


def test_auto_is_exact_where_that_takes_less_than_half_a_minute() -> None:
    # int8 takes 8e-10 s for a pair: 30 s are 3.75e10 pairs
    for queries, short in ((37_000, True), (38_000, False)):
        work = Work(queries, 1_000_000, actors=1)
        assert (estimates(AUTO, CPU, work, gpu=False)["exact"] < SHORT_S) is short
        assert (choose_how(AUTO, CPU, work, gpu=False).mode == "exact") is short


@pytest.mark.parametrize(
    ("rates", "queries", "items", "want"),
    [
        (CPU, 500_000, 1_000_000, "ivf"),  # lists read by so many queries pay for their building
        (CPU, 2_000, 50_000_000, "two_stage"),  # few queries never pay for the lists of so many items
        ({"faiss": CPU["faiss"], "int8": CPU["int8"], "int8:likely": Rate(9e-10, 0.0)}, 2_000, 50_000_000, "exact"),
    ],
)
def test_auto_takes_the_cheapest(rates: dict[str, Rate], queries: int, items: int, want: str) -> None:
    work = Work(queries, items, actors=1)
    costs = estimates(AUTO, rates, work, gpu=False)
    assert costs["exact"] > SHORT_S
    assert min(costs, key=lambda mode: costs[mode]) == want
    how = choose_how(AUTO, rates, work, gpu=False)
    assert how.mode == want
    assert how.engine == "int8"
    assert how.oversample == (2.0 if want == "exact" else OVERSAMPLE)


def test_nothing_measured_is_searched_exactly() -> None:
    huge = Work(queries=10**7, items=10**9, actors=1)
    assert choose_how(AUTO, {}, huge, gpu=False) == How("exact", "faiss", 2.0)
    assert choose_how(AUTO, {}, huge, gpu=True) == How("exact", "torch", 2.0)


def test_on_a_gpu_half_precision_is_the_first_pass_and_exact_enough_on_its_own() -> None:
    work = Work(queries=2_000_000, items=20_000_000, actors=1)
    costs = estimates(AUTO, GPU, work, gpu=True)
    assert costs["exact"] == pytest.approx(4e-12 * 4e13)  # by half precision: a first pass alone cannot be cheaper
    assert costs["two_stage"] > costs["exact"] > SHORT_S
    assert choose_how(SearchSettings(mode="two_stage"), GPU, work, gpu=True).engine == "half"


def device(half: float, float32: float, cpu: float, eight_bit: float, launch: float = 0.0) -> dict[str, Rate]:
    """Rates of a GPU actor from 1e9 pairs a second of each engine, and the seconds of a query that no item takes."""
    rates = {"half": (half, launch), "torch": (float32, launch), "faiss": (cpu, 0.0), "int8": (eight_bit / 3, 1e-5)}
    rates["int8:likely"] = (eight_bit, 1e-5)
    return {name: Rate(1e-9 / speed, of_query) for name, (speed, of_query) in rates.items()}


DEVICES = {
    "a fast device": device(500.0, 60.0, 1.0, 4.0, 5e-6),
    "one of five years ago": device(60.0, 12.0, 2.0, 8.0, 5e-6),
    "a small one beside many CPUs": device(15.0, 4.0, 6.0, 30.0, 2e-5),
    "one without fast half precision": device(3.0, 4.0, 2.0, 8.0, 2e-5),
    "no device": CPU,
}
QUERIES = (10_000, 300_000, 10_000_000)


def test_auto_is_within_a_fifth_of_the_best_mode_from_one_to_64_actors_and_one_to_a_hundred_million_items() -> None:
    modes = set()
    for name, rates in DEVICES.items():
        gpu = "half" in rates
        for actors, items, queries in product((1, 8, 64), (10**6, 10**7, 10**8), QUERIES):
            work = Work(queries, items, actors)
            costs = estimates(AUTO, rates, work, gpu=gpu)
            assert set(costs) == {"exact", "two_stage", "ivf"}
            how = choose_how(AUTO, rates, work, gpu=gpu)
            short = how.mode == "exact" and costs["exact"] < SHORT_S  # seconds are no reason to miss hits
            assert short or costs[how.mode] <= 1.2 * min(costs.values()), (name, work, how, costs)
            if how.mode == "exact":
                certain = {engine: rate.seconds(queries, items) for engine, rate in rates.items() if ":" not in engine}
                assert certain[how.engine] == min(certain.values())
            modes.add((how.mode, how.engine))
    assert modes >= {("exact", "half"), ("exact", "torch"), ("exact", "int8"), ("ivf", "int8")}, "the table reaches them"


@pytest.mark.parametrize("rates", [{}, CPU])
@pytest.mark.parametrize(
    ("mode", "want"),
    [("exact", None), ("two_stage", How("two_stage", "int8", OVERSAMPLE)), ("ivf", How("ivf", "int8", OVERSAMPLE))],
)
def test_a_mode_set_by_hand_is_taken_whatever_it_costs(rates: dict[str, Rate], mode: str, want: How | None) -> None:
    settings = SearchSettings(mode=mode)  # type: ignore[arg-type]
    for work in (Work(10, 10, 1), Work(10**7, 10**8, 3)):
        got = choose_how(settings, rates, work, gpu=False)
        assert got == (want or How("exact", "int8" if rates else "faiss", 2.0))


IVF = Decision(How("ivf", "int8", 1.25, probes=8, centroids="c"), {"lists": 20, "mode": "ivf", "probes": 8})
TWO_STAGE = Decision(How("two_stage", "int8", 1.25), {"mode": "two_stage", "engine": "int8"})
PLAIN = How("exact", "torch")


def test_lists_are_tuned_to_a_little_more_than_the_least() -> None:
    assert [aimed_recall(least) for least in (0.0, 0.5, 0.95, 1.0)] == pytest.approx([0.4, 0.7, 0.97, 1.0])
    assert [more_probes(probes, 20) for probes in (4, 8, 16, 20)] == [8, 16, 20, 20]


def test_a_recall_that_is_high_enough_ends_the_search() -> None:
    settings = SearchSettings(min_recall=0.9)
    assert after_recall(IVF, 0.9, settings, PLAIN) == Decision(IVF.how, IVF.figures | {"recall": 0.9})
    assert after_recall(TWO_STAGE, 0.999, settings, PLAIN) == Decision(TWO_STAGE.how, TWO_STAGE.figures | {"recall": 0.999})


def test_a_two_stage_search_that_misses_too_much_is_followed_by_an_exact_one() -> None:
    got = after_recall(TWO_STAGE, 0.998, SearchSettings(min_recall=0.5), PLAIN)
    assert got == Decision(PLAIN, {"mode": "exact", "engine": "torch", "two_stage_recall": 0.998})


def test_lists_that_miss_too_much_are_doubled_until_all_are_read() -> None:
    settings, decision = SearchSettings(min_recall=0.9), IVF
    probes = []
    while decision.how.probes < 20:
        decision = after_recall(decision, 0.89, settings, PLAIN)
        probes.append(decision.how.probes)
        assert (decision.figures["probes"], decision.figures["widened_at_recall"]) == (probes[-1], 0.89)
        assert "recall" not in decision.figures  # it is searched again
        assert (decision.how.mode, decision.how.centroids) == ("ivf", "c")
    assert probes == [16, 20]
    with pytest.raises(ConfigError, match=r"min_recall = 0.9 .* found 0.8900 though all 20 lists were read; set .*\"exact\""):
        after_recall(decision, 0.89, settings, PLAIN)
