"""Unlabelled copies of relevant items: the ranking is what it would be without them, wherever they stand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.copies import placed, without_copies
from eval.metrics import Judgements, per_query_metrics

Pairs = dict[tuple[int, int], int]


def collapse(rows: list[list[int]], judged: Pairs, texts: list[int]) -> tuple[list[list[int]], list[list[float]], list[bool]]:
    scores = np.where(np.array(rows) >= 0, -np.arange(len(rows[0]), dtype=np.float32), np.float32(-np.inf))
    queries, items = np.array(sorted(judged), np.int64).reshape(-1, 2).T
    relevant = np.array([judged[pair] > 0 for pair in sorted(judged)], bool)
    kept, kept_scores, had = without_copies(np.array(rows, np.int64), scores, queries, items, relevant, np.array(texts, np.int64))
    return kept.tolist(), kept_scores.tolist(), had.tolist()


@pytest.mark.parametrize(
    ("hits", "judged", "want"),
    [
        ([5, 1, 0, 2], {(0, 0): 1}, [5, 0, 2, -1]),  # the copy 1 stands before the relevant item 0
        ([5, 0, 1, 2], {(0, 0): 1}, [5, 0, 2, -1]),
        ([5, 1, 3, 2], {(0, 0): 1}, [5, 0, 3, 2]),  # the relevant item itself is no hit
        ([5, 0, 1, 2], {(0, 0): 1, (0, 1): 2}, [5, 0, 1, 2]),  # both are labelled: there is no copy
        ([5, 1, 0, 2], {(0, 0): 1, (0, 1): 0}, [5, 1, 0, 2]),  # a person judged the copy
        ([5, 1, 0, 2], {(0, 5): 1}, [5, 1, 0, 2]),  # copies of each other, but of nothing relevant
        ([5, 1, 0, -1], {(0, 0): 1}, [5, 0, -1, -1]),
    ],
)
def test_rankings_worked_by_hand(hits: list[int], judged: Pairs, want: list[int]) -> None:
    kept, scores, had = collapse([hits], judged, [7, 7, 1, 2, 3, 4])
    assert kept == [want]
    assert had == [want != hits]
    assert [score > -np.inf for score in scores[0]] == [row >= 0 for row in want]


def test_of_several_labelled_items_with_one_text_the_hits_come_first() -> None:
    # 0, 1 and 2 are relevant and have one text with the copy 3; 1 is no hit
    kept, scores, _ = collapse([[3, 2, 9, 0]], {(0, 0): 1, (0, 1): 1, (0, 2): 3}, [7, 7, 7, 7, 1, 2, 3, 4, 5, 6])
    assert kept == [[2, 0, 9, 1]]
    assert scores == [[0, -1, -2, -3]]


@given(st.data())
def test_figures_do_not_depend_on_where_a_copy_stands_and_are_those_without_it(data: st.DataObject) -> None:
    items, queries = 8, 3
    texts = data.draw(st.lists(st.integers(0, 4), min_size=items, max_size=items))
    pair = st.tuples(st.integers(0, queries - 1), st.integers(0, items - 1))
    judged = data.draw(st.dictionaries(pair, st.integers(0, 2), min_size=1, max_size=8))
    rankings = [data.draw(st.permutations(range(items))) for _ in range(queries)]
    kept, _, had = collapse([list(ranking) for ranking in rankings], judged, texts)
    for query, ranking in enumerate(rankings):
        wanted = [item for (owner, item), score in judged.items() if owner == query and score > 0]
        left: list[int] = []
        for item in ranking:  # a copy is renamed to a relevant item that is still to come, or dropped
            same = [other for other in ranking if other in wanted and texts[other] == texts[item]]
            if item in wanted or (same and (query, item) not in judged):
                left += [other for other in same if other not in left][:1]
            else:
                left.append(item)
        assert kept[query] == left + [-1] * (items - len(left))
        assert had[query] == any(
            (query, item) not in judged and texts[item] in {texts[other] for other in wanted} for item in ranking
        )


def test_recall_is_the_same_for_both_orders_of_the_file() -> None:
    judgements = Judgements.from_triples(np.array([0]), np.array([0]), np.array([1]))
    found = [
        per_query_metrics(np.array(collapse([hits], {(0, 0): 1}, [7, 7, 1])[0]), np.array([0]), judgements, ks=(1, 2))
        for hits in ([0, 1, 2], [1, 0, 2])
    ]
    assert found[0] == found[1]
    assert found[0]["recall@1"].tolist() == [1.0]
    assert found[0]["bad_top1"].tolist() == [0.0]


def test_labels_of_other_queries_have_no_place() -> None:
    place, label = placed(np.array([3, 5, 9]), np.array([0, 5, 5, 6, 9, 12]))
    assert place.tolist() == [1, 1, 2]
    assert label.tolist() == [1, 2, 4]
