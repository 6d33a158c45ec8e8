"""Whether the labels leave something to learn and something to measure: checked when all tables are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from cluster.errors import DataError
from jobs.config.data import DataSettings
from jobs.stages.ingest.labels import LabelRows
from jobs.stages.ingest.lookup.ids import Ids, StoredIds
from jobs.stages.ingest.tables import Written


def refuse_nothing_relevant(labels: LabelRows) -> None:
    """Raises DataError: no label says that an item is relevant."""
    if not len(labels.relevant):
        raise DataError(
            f"none of the {len(labels.grades)} labels says that an item is relevant ({labels.rule}), so there is "
            f"nothing to measure; check the scores in the labels"
        )


def check_positives(splits: list[str], labels: LabelRows, queries: Written, data: DataSettings) -> dict[str, int]:
    """Take training queries without a relevant item out, in place, if `data` says so. Returns notes: counts.

    Raises:
        DataError: there is no training query, one has no relevant item, or none has a weight.
    """
    relevant = set(labels.relevant.tolist())
    notes = {"dev_queries_without_positive": sum(split == "dev" and row not in relevant for row, split in enumerate(splits))}
    training = [row for row, split in enumerate(splits) if split == "train"]
    if not training:
        raise DataError(
            f'expected queries of the train split, found {_counts(splits)}; say split = "train" for some in '
            f"the queries or the labels"
        )
    without = [row for row in training if row not in relevant]
    if without and not data.skip_queries_without_positive:
        raise DataError(
            f"expected a relevant item (a label with {labels.rule}) for each training query, found none for "
            f"{len(without)} of {len(training)}, the first is {queries.ids[without[0]].as_py()!r}; label "
            f"or remove them, or set data.skip_queries_without_positive = true to leave them out"
        )
    if len(without) == len(training):
        raise DataError(
            f"none of the {len(without)} training queries has a relevant item (a label with {labels.rule}); check "
            f"the scores in the labels"
        )
    _refuse_no_weight(splits, labels)
    for row in without:
        splits[row] = "none"
    return notes | ({"train_queries_skipped": len(without)} if without else {})


def _refuse_no_weight(splits: list[str], labels: LabelRows) -> None:
    learned = (labels.scores > 0) & (np.array(splits) == "train")[labels.query_rows]
    if not labels.weights[learned].any():
        raise DataError(
            f"expected a weight above 0 for some relevant label of a training query, found 0 in all {int(learned.sum())}: "
            f"nothing would be learned; correct the column 'weight' of the labels, or leave it out (then each weighs 1)"
        )


def _counts(splits: list[str]) -> str:
    return (
        ", ".join(f"{count} of {split}" for split, count in Counter(splits).items() if split != "none")
        or "none with a label or a split"
    )


def check_negatives(splits: list[str], labels: LabelRows, items: int, same: Sequence[str]) -> dict[str, int]:
    """Whether an item is left that could be a negative. Returns notes: training queries for which all items are relevant.

    Args:
        items: how many there are. same: "group" or "text", where all of them have the same one, and so count as the same thing.

    Raises:
        DataError: all items are the same thing, or every item is relevant to every training query.
    """
    training = np.array(splits) == "train"
    of_training = training[labels.query_rows]
    if same and not (of_training & (labels.scores == 0)).any():  # what a person judged irrelevant is a negative in any case
        raise DataError(
            f"all {items} items have the same {same[0]}: they count as one thing, so none of them can be a negative; "
            f"check {'data.columns.group, or leave the column out' if same[0] == 'group' else 'data.item_text'}"
        )
    pairs = np.unique((labels.query_rows * items + labels.item_rows)[of_training & (labels.scores > 0)])
    full = int((np.bincount(pairs // items, minlength=len(splits)) == items).sum())
    if full and full == int(training.sum()):
        raise DataError(
            f"every one of the {items} items is relevant to every one of the {full} training queries (a label with "
            f"{labels.rule}), so there is nothing to tell apart; check the scores: what was judged irrelevant has the score 0"
        )
    return {"train_queries_with_all_relevant": full} if full else {}


def label_figures(labels: LabelRows, shared: LabelRows, query_ids: Ids, item_ids: Ids | StoredIds) -> dict[str, Any]:
    """What the labels hold, as counts and grades.

    Args:
        labels: as they came with the data. shared: with what equal texts add.
    """
    grades = labels.scores[labels.scores > 0]
    judged, _ = labels.take(np.flatnonzero(labels.scores == 0)).unrepeated()
    still = shared.take(np.flatnonzero(shared.scores == 0))
    pairs, kept = (rows.query_rows * len(item_ids) + rows.item_rows for rows in (judged, still))
    remains = np.isin(pairs, kept)
    contradictions = judged.take(np.flatnonzero(~remains))
    first = [(contradictions.query_rows, query_ids), (contradictions.item_rows, item_ids)]
    return {
        "labels": len(labels.grades),
        "judged_irrelevant": int(remains.sum()),
        "negative_scores": int((judged.grades[remains] < 0).sum()),
        "contradictions": len(contradictions.grades),
        "contradiction": [ids.names(rows[:1])[0] for rows, ids in first] if len(contradictions.grades) else None,
        "grades": [float(grades.min()), float(np.median(grades)), float(grades.max())] if len(grades) else None,
    }
