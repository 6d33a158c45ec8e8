"""Recall in the pool of validation, from scores worked by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from cluster.labels.labels import Labels
from training.retriever.validation import ValidationSet, recall_of


@pytest.mark.parametrize("order", [[0, 1, 2], [1, 0, 2]])
def test_an_unlabelled_copy_of_a_relevant_item_takes_no_place(order: list[int]) -> None:
    relevant, copy, other = order
    labels = pa.table({"query_row": [0, 0], "item_row": [relevant, other], "score": [1, 1]}).sort_by("item_row")
    texts = [0, 0, 1]
    known = Labels.from_tables(labels, pa.table({"group_code": [-1] * 3, "text_code": texts}), 1)
    scores = torch.zeros(1, 3)
    scores[0, relevant] = scores[0, copy] = 0.9
    scores[0, other] = 0.5
    assert recall_of(scores, ValidationSet(np.array([0]), np.arange(3)), known, 2).tolist() == [1.0]


def test_a_query_is_no_hit_of_its_own() -> None:
    labels = pa.table({"query_row": [0], "item_row": [1], "score": [1]})
    known = Labels.from_tables(labels, pa.table({"group_code": [-1] * 2, "text_code": [0, 1]}), 1, np.array([0]))
    assert recall_of(torch.tensor([[1.0, 0.5]]), ValidationSet(np.array([0]), np.arange(2)), known, 1).tolist() == [1.0]
