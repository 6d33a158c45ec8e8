"""Which columns may be whose negatives, and of what kind they are."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.labels.labels import NO_NEGATIVE, Labels
from training.feed.batches import Batch
from training.feed.candidate_masks import Columns, candidate_masks, find_candidates
from training.telemetry.gradient_geometry import CROSS_RANK, HARD, IN_BATCH, RANDOM


def slow_masks(batch: Batch, columns: list[int], labels: Labels) -> tuple[list[list[bool]], list[list[int]]]:
    """Column by column, from the meaning of the words."""
    masked, kinds, here = [], [], {*batch.positive_rows, *batch.hard_BH.ravel(), *batch.random_BR.ravel()}
    for b, query in enumerate(batch.query_rows.tolist()):
        judged = {
            int(labels.item_rows[i]): int(labels.scores[i]) for i in range(labels.offsets[query], labels.offsets[query + 1])
        }
        good = [item for item, score in judged.items() if score != 0]
        groups = {int(labels.group_codes[item]) for item in good} - {-1}
        texts = {int(labels.text_codes[item]) for item in good}
        known = [
            item in good or int(labels.group_codes[item]) in groups or int(labels.text_codes[item]) in texts for item in columns
        ]
        masked.append([is_known and judged.get(item, 1) != 0 for item, is_known in zip(columns, known, strict=True)])
        kinds.append(
            [
                HARD
                if item in batch.hard_BH[b]
                else RANDOM
                if item in batch.random_BR[b]
                else IN_BATCH
                if item in here
                else CROSS_RANK
                for item in columns
            ]
        )
    return masked, kinds


@settings(max_examples=40)
@given(st.integers(0, 9999))
def test_masks_and_kinds_equal_a_slow_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    num_queries, num_items = 16, 25
    counts = rng.integers(0, 5, num_queries)
    rows = [np.sort(rng.permutation(num_items)[:count]) for count in counts]
    labels = Labels(
        num_queries,
        num_items,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        item_rows=np.concatenate(rows).astype(np.int64),
        scores=rng.integers(NO_NEGATIVE, 3, counts.sum()),
        group_codes=np.where(rng.random(num_items) < 0.5, -1, rng.integers(0, 4, num_items)),
        text_codes=rng.integers(0, 12, num_items),
    )
    batch = Batch.of(
        query_rows=rng.permutation(num_queries)[:6],
        positive_rows=rng.integers(0, num_items, 6),
        hard_BH=rng.integers(-1, num_items, (6, 3)),
        random_BR=rng.integers(0, num_items, (6, 2)),
        weights=np.ones(6, np.float32),
    )
    columns = rng.permutation(num_items)[:15]
    masked, kinds = candidate_masks(batch, columns, labels)
    want_masked, want_kinds = slow_masks(batch, columns.tolist(), labels)
    assert masked.tolist() == want_masked
    assert kinds.tolist() == want_kinds
    # some of the rank's queries at a time see the same
    found = find_candidates(batch, Columns.listed(columns), labels)
    parts = [found.masks(slice(*part), torch.device("cpu")) for part in ((0, 4), (4, 6))]
    np.testing.assert_array_equal(torch.cat([mask for mask, _ in parts]).numpy(), masked)
    np.testing.assert_array_equal(torch.cat([kind for _, kind in parts]).numpy(), kinds)


def test_without_negatives_of_their_own_queries_see_only_those_of_others() -> None:
    labels = Labels(
        2,
        9,
        offsets=np.zeros(3, np.int64),
        item_rows=np.zeros(0, np.int64),
        scores=np.zeros(0, np.int64),
        group_codes=np.full(9, -1),
        text_codes=np.arange(9),
    )
    batch = Batch.of(np.array([0, 1]), np.array([3, 5]), np.full((2, 0), -1), np.zeros((2, 0), np.int64), np.ones(2, np.float32))
    masked, kinds = candidate_masks(batch, np.array([5, 8, 3]), labels)
    assert not masked.any()
    assert kinds.tolist() == [[IN_BATCH, CROSS_RANK, IN_BATCH]] * 2
