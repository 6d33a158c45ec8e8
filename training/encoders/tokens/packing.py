"""Which texts are encoded together: packs of similar length under a token budget, cut where padding costs least.

N texts, G distinct lengths.
"""

from __future__ import annotations

import numpy as np

from cluster.tables.tables import I64

PASS_SHARE = 1 / 32
"""What a pass costs beside its tokens (Python, launching kernels, small layers), as a share of the budget. Measured on a CPU;
a GPU's budget is as much larger as its passes are faster."""


def pack(lengths: I64, budget_tokens: int, *, pads: bool = True) -> list[I64]:
    """Cut texts into packs.

    Filling every pack to the budget, longest text first, pads a few dozen texts of mixed length by half, because a pack that
    starts with a long text takes in short ones. Here a pack also ends where ending it saves more padding than another pass
    costs: texts are grouped by length, and the groups are joined into runs of least total cost (a shortest path).

    Args:
        lengths: [N] tokens of each text.
        budget_tokens: most tokens of a pack, padding included; a longer text comes alone.
        pads: the encoder pads every text of a pack to its longest one; where it does not, packs are simply filled.

    Returns:
        Positions of the texts of each pack, longest texts first; every text exactly once. Deterministic.
    """
    order = np.argsort(-lengths, kind="stable")
    if not pads:
        return _filled(order, lengths[order], budget_tokens)
    # a text without tokens still takes a place
    values, counts = np.unique(np.maximum(lengths, 1), return_counts=True)
    packs: list[I64] = []
    start = 0
    for longest, texts in _runs(values[::-1], counts[::-1], budget_tokens):
        size = max(1, budget_tokens // longest)
        packs += [order[place : min(place + size, start + texts)] for place in range(start, start + texts, size)]
        start += texts
    return packs


def _filled(order: I64, lengths_N: I64, budget_tokens: int) -> list[I64]:
    ends, packs, start = np.cumsum(np.maximum(lengths_N, 1)), [], 0
    while start < len(order):
        used = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, used + budget_tokens, side="right")))
        packs.append(order[start:stop])
        start = stop
    return packs


def _runs(values_G: I64, counts_G: I64, budget_tokens: int) -> list[tuple[int, int]]:
    """(longest text, number of texts) of each run of groups; values_G descending."""
    groups = len(values_G)
    before = np.concatenate([[0], np.cumsum(counts_G)])
    cost, following = np.zeros(groups + 1), np.zeros(groups, np.int64)
    for first in range(groups - 1, -1, -1):
        texts = before[first + 1 :] - before[first]
        passes = -(-texts // max(1, budget_tokens // int(values_G[first])))
        # as if every pack of the run were padded to its first text: a little more than it will be
        total = texts * values_G[first] + passes * (budget_tokens * PASS_SHARE) + cost[first + 1 :]
        best = int(np.argmin(total))
        cost[first], following[first] = total[best], first + 1 + best
    runs, first = [], 0
    while first < groups:
        after = int(following[first])
        runs.append((int(values_G[first]), int(before[after] - before[first])))
        first = after
    return runs
