"""The table's comparisons against `compare` on its own, family by family."""

from __future__ import annotations

import numpy as np

from eval.reranking.table import FINE_TUNED, METRICS, NONE, OFF_THE_SHELF, Cell, compare_cells
from eval.significance import holm, paired_bootstrap, paired_permutation_p

REFERENCE = Cell(FINE_TUNED)
CELLS = [Cell(retriever, reranker) for retriever in (OFF_THE_SHELF, FINE_TUNED) for reranker in (NONE, OFF_THE_SHELF, FINE_TUNED)]


def values(queries: int) -> dict[Cell, dict[str, np.ndarray]]:
    rng = np.random.default_rng(3)
    base = rng.random((queries, len(METRICS)))
    base[:5] = np.nan  # queries without a relevant item
    return {
        cell: {name: base[:, column] + rng.normal(0.02 * number, 0.1, queries) for column, name in enumerate(METRICS)}
        for number, cell in enumerate(CELLS)
    }


def test_the_primary_figure_of_all_cells_is_one_family_and_all_else_another() -> None:
    of = values(200)
    got = compare_cells(of, REFERENCE, primary="ndcg@10", resamples=500)
    assert list(got) == [cell for cell in CELLS if cell != REFERENCE]
    names = ["ndcg@10", *(name for name in METRICS if name != "ndcg@10")]
    assert all(list(changes) == names for changes in got.values())
    for family in (names[:1], names[1:]):
        keys = [(cell, name) for cell in got for name in family]
        want = holm([paired_permutation_p(of[cell][name], of[REFERENCE][name], resamples=500) for cell, name in keys])
        assert [got[cell][name].p_adjusted for cell, name in keys] == want
    cell = CELLS[-1]
    assert got[cell]["mrr@10"].interval == paired_bootstrap(of[cell]["mrr@10"], of[REFERENCE]["mrr@10"], resamples=500)
    assert got[cell]["mrr@10"].interval.queries == 195


def test_a_metric_that_was_not_measured_is_left_out() -> None:
    of = {cell: {"recall@3": metrics["recall@3"]} for cell, metrics in values(60).items()}
    got = compare_cells(of, REFERENCE, primary="recall@3", resamples=200)
    assert all(list(changes) == ["recall@3"] for changes in got.values())


def test_a_cell_says_what_it_is() -> None:
    assert REFERENCE.label == "the fine-tuned retriever alone"
    assert CELLS[1].label == "the off-the-shelf retriever with the off-the-shelf re-ranker"
