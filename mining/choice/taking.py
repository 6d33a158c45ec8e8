"""The compiled loop of choosing: each query takes candidates in its order, as far as shares and uses allow.

One query after another, because what a query takes may use an item up for the queries after it.

Q queries, K candidates per query, N negatives, S sources, J judged items of a query.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cluster.labels.compiled import compiled
from cluster.tables.tables import I64

Bool = npt.NDArray[np.bool_]
I32 = npt.NDArray[np.int32]


@compiled()
def _take_some(
    query: int,
    order: I64,
    eligible_K: Bool,
    slot_K: I32,
    rows_K: I64,
    left_S: I64,
    room: int,
    uses: I32,
    max_uses: int,
    taken_K: Bool,
) -> int:
    """Take candidates in `order` until there is no room; returns the room that is left.

    Args:
        slot_K: the source whose share a candidate counts for, -1 for none.
        left_S: how many each source may still give; empty: shares do not matter.
    """
    for column in order:
        if room == 0:
            break
        if not eligible_K[column] or taken_K[column]:
            continue
        if len(left_S) and (slot_K[column] < 0 or left_S[slot_K[column]] == 0):
            continue
        if len(uses):
            if uses[rows_K[column]] >= max_uses:
                continue
            uses[rows_K[column]] += 1
        if len(left_S):
            left_S[slot_K[column]] -= 1
        taken_K[column] = True
        room -= 1
    return room


@compiled()
def take(
    queries: I64,
    eligible_QK: Bool,
    rows_QK: I64,
    slots_QK: I32,
    quotas: I64,
    within: I64,
    overall: I64,
    judged_QN: I64,
    uses: I32,
    max_uses: int,
    out_QN: I64,
) -> None:
    """The columns of the candidates that each query takes, ascending, into out_QN (-1 padding).

    Args:
        queries: [Q] the order in which queries take.
        slots_QK: the source whose share a candidate counts for, -1 for none.
        quotas: [N + 1, S] of each source, by how many are to be taken; S = 0: shares do not matter.
        within: [Q or 1, K] columns, the order in which a source's candidates count for its share; one row serves all.
        overall: [Q or 1, K] columns, the order in which what is left is filled up.
        judged_QN: items judged irrelevant, which take up room (-1 padding); they count as uses but are never used up.
        uses: [items] how often an item has been taken, brought up to date; empty: it does not matter.
        max_uses: a candidate is passed over once it has been taken so often.
    """
    nothing = np.empty(0, np.int64)
    for query in queries:
        room = out_QN.shape[1]
        for item in judged_QN[query]:
            if item >= 0:
                room -= 1
                if len(uses):
                    uses[item] += 1
        taken = np.zeros(eligible_QK.shape[1], np.bool_)
        if quotas.shape[1]:
            order = within[min(query, len(within) - 1)]
            room = _take_some(
                query,
                order,
                eligible_QK[query],
                slots_QK[query],
                rows_QK[query],
                quotas[room].copy(),
                room,
                uses,
                max_uses,
                taken,
            )
        order = overall[min(query, len(overall) - 1)]
        _take_some(query, order, eligible_QK[query], slots_QK[query], rows_QK[query], nothing, room, uses, max_uses, taken)
        count = 0
        for column in range(len(taken)):
            if taken[column]:
                out_QN[query, count] = column
                count += 1
        out_QN[query, count:] = -1
