"""Advice on counts worked by hand: the first step, what decided it, and what the data does not have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from eval.readiness import COLLECT, RERANKER, LabelCounts, OffTheShelf, advise

GOOD = LabelCounts(examples=9_000, synthetic=0, queries=3_000, negatives=4_000, dev=400, test=400)
FOUND = OffTheShelf("recall@3", 0.55, 0.95, 100, 0.90)


@pytest.mark.parametrize(
    ("examples", "answer", "words"),
    [
        (COLLECT - 1, "collect data", "999 usable examples, fewer than the 1,000"),
        (
            COLLECT,
            "fine-tune the re-ranker",
            "1,000 usable examples: enough for a re-ranker (from 1,000), few for the embeddings",
        ),
        (RERANKER - 1, "fine-tune the re-ranker", "5,999 usable examples"),
        (RERANKER, "fine-tune the embeddings", "6,000 usable examples, 6,000 or more"),
    ],
)
def test_the_number_of_examples_decides_the_first_step(examples: int, answer: str, words: str) -> None:
    advice = advise(replace(GOOD, examples=examples), FOUND)
    assert advice.answer == answer
    assert words in advice.because[0]


def test_thresholds_are_the_users() -> None:
    assert advise(replace(GOOD, examples=300), FOUND, reranker_from=200).answer == "fine-tune the re-ranker"
    assert advise(replace(GOOD, examples=300), FOUND, reranker_from=100, embeddings_from=300).answer == "fine-tune the embeddings"


def test_what_order_could_gain_is_told_from_what_retrieval_could() -> None:
    (_, said) = advise(GOOD, FOUND).because
    assert "Recall@3 is 0.550; a perfect order of its first 100 results has 0.900, a perfect model 0.950" in said
    assert "35.0 points are a matter of order, 5.0 of retrieval, so mostly order" in said
    (_, said) = advise(GOOD, replace(FOUND, in_reach=0.6)).because
    assert "5.0 points are a matter of order, 35.0 of retrieval, so mostly relevant items are not found at all" in said


def test_nothing_is_missing_from_good_data() -> None:
    assert advise(GOOD, FOUND).missing == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dev": 49}, "Dev queries: 49 have a relevant item, fewer than 50"),
        ({"dev_is_cut": True}, "A dev split of its own: 400 of the training queries"),
        ({"test": 0}, "A test split"),
        ({"negatives": 0}, "Judged negatives: nothing is labelled irrelevant"),
        ({"queries": 8_000}, "Thickness: 1.1 relevant items for each training query"),
        ({"synthetic": 3_000}, "Real labels: 25% of the training labels are generated, more than 20%"),
    ],
)
def test_what_is_missing_is_named_with_its_figure(changes: dict[str, int], words: str) -> None:
    (missing,) = advise(replace(GOOD, **changes), FOUND).missing
    assert missing.startswith(words)


def test_unmeasured_figures_are_missing() -> None:
    (missing,) = advise(GOOD, None).missing
    assert "hardmine evaluate CONFIG --round -1" in missing
