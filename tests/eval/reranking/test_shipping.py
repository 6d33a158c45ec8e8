"""What to ship, on tables worked by hand: a clear gain, chance, a loss, too few queries."""

from __future__ import annotations

from eval.reranking.shipping import Cost, best_pair, what_to_ship
from eval.reranking.table import FINE_TUNED, NONE, OFF_THE_SHELF, Cell
from eval.significance import Comparison, Interval

REFERENCE, PAIR, CHEAP = Cell(FINE_TUNED), Cell(FINE_TUNED, FINE_TUNED), Cell(FINE_TUNED, OFF_THE_SHELF)
ALONE = Cell(OFF_THE_SHELF, NONE)
COST = Cost(
    p50_ms={10: 8.25, 20: 45.0, 50: 105.0, 100: 212.0},
    p95_ms={10: 9.0, 20: 50.0, 50: 120.0, 100: 1250.0},
    where="1 CPU thread",
    figures={10: 0.715, 20: 0.776, 50: 0.779, 100: 0.78},
)


def change(mean: float, *, significant: bool) -> Comparison:
    p = 0.0005 if significant else 0.3
    return Comparison(Interval(mean, mean - 0.02, mean + 0.02, 400), p, p, significant)


def ship(pair: float, *, significant: bool, cheap: float = 0.69, alone: float = 0.5, doubt: str = "") -> tuple[Cell, str]:
    means = {ALONE: alone, REFERENCE: 0.71, CHEAP: cheap, PAIR: pair}
    compared = {
        cell: change(mean - 0.71, significant=significant or abs(mean - 0.71) > 0.1)
        for cell, mean in means.items()
        if cell != REFERENCE
    }
    shipping = what_to_ship(means, compared, REFERENCE, primary="recall@3", cost=COST, doubt=doubt)
    return shipping.cell, shipping.sentence


def test_a_clear_gain_is_shipped_with_its_cost_and_the_fewest_candidates_that_keep_it() -> None:
    cell, sentence = ship(0.78, significant=True)
    assert cell == PAIR
    assert sentence == (
        "Ship the fine-tuned retriever with the fine-tuned re-ranker: Recall@3 0.710 → 0.780 (+7.0 points [+5.0, +9.0], "
        "p = 0.0005) against the fine-tuned retriever alone; re-ranking 100 candidates takes 212 ms a query (95th percentile "
        "1,250 ms) on 1 CPU thread, 20 candidates 45 ms for +6.6 of these +7.0 points."
    )


def test_a_gain_that_may_be_chance_ships_the_retriever_alone() -> None:
    cell, sentence = ship(0.72, significant=False)
    assert cell == REFERENCE
    assert sentence.startswith(
        "Ship the fine-tuned retriever alone: the best pair, the fine-tuned retriever with the fine-tuned "
    )
    assert "+1.0 points [-1.0, +3.0], p = 0.3, which may be chance" in sentence


def test_a_loss_is_called_one() -> None:
    cell, sentence = ship(0.70, significant=True)
    assert cell == REFERENCE
    assert "re-ranking makes it worse: even the best pair, the fine-tuned retriever with the fine-tuned re-ranker" in sentence


def test_a_proven_pair_goes_before_a_higher_one_that_is_not() -> None:
    means = {REFERENCE: 0.71, CHEAP: 0.74, PAIR: 0.75}
    compared = {CHEAP: change(0.03, significant=True), PAIR: change(0.04, significant=False)}
    assert best_pair(means, compared) == CHEAP
    assert what_to_ship(means, compared, REFERENCE, primary="recall@3", cost=COST).cell == CHEAP


def test_a_retriever_alone_that_is_better_than_the_kept_one_is_shipped_without_the_price_of_a_re_ranker() -> None:
    cell, sentence = ship(0.70, significant=False, alone=0.9)
    assert cell == ALONE
    assert "ms" not in sentence


def test_too_few_queries_are_named() -> None:
    assert ship(0.78, significant=True, doubt="12 evaluated queries, fewer than 50")[1].endswith(
        " This rests on too little: 12 evaluated queries, fewer than 50."
    )
