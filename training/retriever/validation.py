"""Validation inside training: recall of dev queries among a fixed pool of items, on the weights as they are.

The pool is small on purpose: each dev query's positives, the items that a model confused with them, and a random
fill. It orders epochs; the round's real figures come from the evaluate stage on the whole corpus.

V queries, P pool items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cluster.labels.labels import Labels
from cluster.tables.tables import I64
from training.engine.engine import Place
from training.feed.tables import Tables
from training.rank.forward import encode_shared
from training.settings import VALIDATION_QUERIES

VALIDATION_ITEMS = 2000
"""Items that validation searches: first the dev queries' positives and their nearest wrong items, then random ones."""


@dataclass(frozen=True)
class ValidationSet:
    """Which dev queries, among which items."""

    query_rows: I64
    item_rows: I64
    """[P] ascending."""


def choose_validation(
    dev_rows: I64, near_misses: I64, labels: Labels, seed: int, fill: I64 | None = None
) -> ValidationSet | None:
    """A fixed validation set; None where no dev query has a relevant item.

    Args:
        dev_rows: dev queries; those without a relevant item are left out.
        near_misses: items that a model put high for dev queries, nearest first; may be empty.
        fill: the items that the rest is drawn from; None: all.
    """
    offsets, _ = labels.positives(dev_rows)
    usable = dev_rows[np.diff(offsets) > 0]
    if not len(usable):
        return None
    rng = np.random.default_rng([seed, 1])
    queries = np.sort(rng.permutation(usable)[:VALIDATION_QUERIES])
    _, positives = labels.positives(queries)
    drawn = rng.permutation(labels.num_items if fill is None else fill)
    wanted = np.concatenate([np.unique(positives), near_misses, drawn])
    _, first = np.unique(wanted, return_index=True)
    size = max(VALIDATION_ITEMS, len(np.unique(positives)))
    return ValidationSet(queries, np.sort(wanted[np.sort(first)[:size]]))


def recall_per_query(
    engine: Any, chosen: ValidationSet, tables: Tables, k: int, place: Place, *, budget_tokens: int
) -> npt.NDArray[np.float64]:
    """Recall@k of each validation query, [V]. Collective: every rank calls it and gets the same figures."""
    engine.eval()
    with torch.no_grad():
        queries = encode_shared(engine, tables.queries, chosen.query_rows, place, budget_tokens=budget_tokens)
        items = encode_shared(engine, tables.items, chosen.item_rows, place, budget_tokens=budget_tokens)
    engine.train()
    return recall_of(queries @ items.T, chosen, tables.labels, k)


def recall_of(scores: Tensor, chosen: ValidationSet, labels: Labels, k: int) -> npt.NDArray[np.float64]:
    """Recall@k of each query, [V], from its scores [V, P]. No hits: the item that the query is, copies of relevant items."""
    items_VP = np.broadcast_to(chosen.item_rows, (len(chosen.query_rows), len(chosen.item_rows)))
    no_hit = labels.copy_mask(chosen.query_rows, items_VP)
    if labels.self_rows is not None:
        no_hit |= labels.self_rows[chosen.query_rows][:, None] == items_VP
    scores = scores.masked_fill(torch.from_numpy(no_hit).to(scores.device), -torch.inf)
    top = scores.topk(min(k, scores.shape[1]), dim=1).indices.cpu().numpy()
    hits = chosen.item_rows[top]
    offsets, positives = labels.positives(chosen.query_rows)
    owner = np.repeat(np.arange(len(chosen.query_rows)), np.diff(offsets))
    found = (hits[owner] == positives[:, None]).any(axis=1)
    return np.bincount(owner, weights=found, minlength=len(chosen.query_rows)) / np.diff(offsets)
