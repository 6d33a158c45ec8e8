"""What happens to hits before they are measured."""

from __future__ import annotations

import numpy as np

from jobs.stage_5_evaluate import without_self


def test_a_query_that_is_an_item_does_not_find_itself() -> None:
    hits = np.array([[7, 3, 5], [3, 7, 5], [4, 6, 8]])
    got = without_self(hits, np.array([7, 7, -1]))
    assert got.tolist() == [[3, 5], [3, 5], [4, 6]], "the own item goes, and of others only what is one too many"


def test_padding_is_kept_where_a_query_is_no_item() -> None:
    assert without_self(np.array([[2, -1, -1]]), np.array([-1])).tolist() == [[2, -1]]
