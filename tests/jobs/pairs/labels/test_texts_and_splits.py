"""Spelling variants are grouped only where that is sure; one text is in one split."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.pairs.labels.splits import by_text, cut_times
from jobs.pairs.labels.texts import variants
from tests.jobs.pairs.conftest import MINUTE, START, Make, event, query


@pytest.mark.parametrize(
    ("rare", "meant", "wanted"),
    [
        ("runnig shoe", "running shoe", True),
        ("runing shoe", "running shoe", True),
        ("urnning shoe", "running shoe", True),
        ("runningshoe", "running shoe", True),
        ("iphone 13", "iphone 12", False),
        ("red mat", "red hat", False),
        ("rings", "ring", False),
        ("runing shoo", "running shoe", False),
    ],
)
def test_a_variant_is_one_letter_away_ten_times_rarer_and_no_word_of_its_own(rare: str, meant: str, wanted: bool) -> None:
    texts, counts = [rare, meant, "door mat", "mat", "13 things"], [2, 40, 50, 60, 70]
    assert ((0, 1) in variants(texts, counts)) == wanted


def test_a_frequent_neighbour_is_a_query_of_its_own() -> None:
    assert variants(["running shoe", "running shoes"], [40, 30]) == []


def test_the_log_is_cut_by_the_number_of_queries() -> None:
    hours = dict.fromkeys(range(100), 10)
    dev, test = cut_times(hours, 0.1)
    assert (dev // 3_600_000, test // 3_600_000) == (80, 90)
    assert cut_times(hours, 0.0) == (0, 0)
    assert cut_times({1: 5, 2: 5}, 0.1) == (0, 0), "two hours are no time"


def test_hashes_share_out_as_the_settings_say() -> None:
    keys = np.random.default_rng(1).integers(0, 2**63, 20_000).astype(np.uint64) * np.uint64(2)
    split = by_text(keys, 0.2)
    assert np.bincount(split, minlength=3) / 20_000 == pytest.approx([0.6, 0.2, 0.2], abs=0.01)


def test_no_twin_crosses_the_splits_and_training_sees_nothing_of_the_future(pairs: Make) -> None:
    rows = []
    for number in range(400):
        day = number // 4
        text = f"thing {number % 40}" if number % 3 else f"new thing {number}"
        text = text.upper() if number % 5 == 0 else text
        time = START + day * 1440 * MINUTE + number
        rows += [query(f"q{number}", text, [f"i{number}", "z"], user=f"u{number}", time=time)]
        rows += [event(f"q{number}", f"i{number}", "purchase", user=f"u{number}", time=time + 1000)]
    made = pairs({"log.jsonl": rows})
    queries = made.table("queries")
    assert len({row["text"].lower() for row in queries}) == len(queries), "equal texts are one query"
    assert {row["split"] for row in queries} == {"train", "dev", "test"}
    split = {row["text"].lower(): row["split"] for row in queries}
    assert split["new thing 399"] == "test"
    assert split["new thing 330"] == "dev"
    train = [item for (text, item), _ in made.labels.items() if split[text.lower()] == "train"]
    assert max(int(item[1:]) for item in train) < 320, "nothing after the cut"
    held_out = [
        item for (text, item), _ in made.labels.items() if text.lower().startswith("thing") and split[text.lower()] != "train"
    ]
    assert held_out
    assert min(int(item[1:]) for item in held_out) >= 320, "held-out queries are measured on what came later"
