"""Unlabelled copies of relevant items among the hits: the same text under another id is the same answer.

Which of two equal texts is the first hit is an accident of their order in the file. So a relevant item stands at the best
position that it or an unlabelled copy of it has, and the other copies leave the ranking, as if the corpus had none.

Q queries, K hits, J labels, L of them relevant, S hits that are a relevant item or a copy of one, N items.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cluster.labels.labels import contains, contains_code

I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]


def without_copies(
    rows_QK: I64, scores_QK: F32, query_J: I64, item_J: I64, relevant_J: Bool, text_codes_N: I64
) -> tuple[I64, F32, Bool]:
    """The ranking without unlabelled copies of each query's relevant items.

    Args:
        rows_QK: item rows, best first, -1 padding. scores_QK: of the same hits; padding -inf.
        query_J, item_J, relevant_J: query 0 … Q - 1 and item row of every label, and whether it says relevant. An item with
            a label is no copy.
        text_codes_N: items with one code have one text.

    Returns:
        (rows [Q, K], scores [Q, K], whether the query had a copy among its hits [Q]). Where it had none, its hits are as
        they were; where it had some, the last ones are padding. A hit keeps the score of its position.
    """
    query_L, item_L = query_J[relevant_J], item_J[relevant_J]
    copy_QK = contains_code(query_L, text_codes_N[item_L], text_codes_N, rows_QK) & ~contains(query_J, item_J, rows_QK)
    has_Q = np.asarray(copy_QK.any(axis=1))
    if not has_Q.any():
        return rows_QK, scores_QK, has_Q
    mine_L = has_Q[query_L]
    query_L, item_L = query_L[mine_L], item_L[mine_L]
    relevant_QK = contains(query_L, item_L, rows_QK)
    query_S, position_S = np.nonzero(relevant_QK | copy_QK)
    item_S = rows_QK[query_S, position_S]
    # of the relevant items with one text those that are hits come first, in their order
    position_L = _position_of(query_L, item_L, query_S, item_S, position_S, rows_QK.shape[1])
    _, text = np.unique(text_codes_N[np.concatenate([item_S, item_L])], return_inverse=True)
    key = np.concatenate([query_S, query_L]) * np.int64(text.max() + 1) + text
    key_S, key_L = key[: len(item_S)], key[len(item_S) :]
    order_S, order_L = np.lexsort((position_S, key_S)), np.lexsort((item_L, position_L, key_L))
    start = np.searchsorted(key_L[order_L], key_S[order_S])
    wanted = start + np.arange(len(order_S)) - np.searchsorted(key_S[order_S], key_S[order_S])
    fits = wanted < np.searchsorted(key_L[order_L], key_S[order_S], side="right")
    rows = rows_QK.copy()
    rows[query_S[order_S], position_S[order_S]] = np.where(fits, item_L[order_L][np.minimum(wanted, len(order_L) - 1)], -1)
    scores = np.where(rows >= 0, scores_QK, np.float32(-np.inf))
    order_QK = np.argsort(rows < 0, axis=1, kind="stable")
    return np.take_along_axis(rows, order_QK, axis=1), np.take_along_axis(scores, order_QK, axis=1), has_Q


def _position_of(query_L: I64, item_L: I64, query_S: I64, item_S: I64, position_S: I64, missing: int) -> I64:
    """[L] position of each item among its query's hits; `missing` where it is none."""
    width = np.int64(max(item_L.max(initial=0), item_S.max(initial=0)) + 1)
    keys, wanted = query_S * width + item_S, query_L * width + item_L
    order = np.argsort(keys, kind="stable")
    place = np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)
    return np.where(keys[order][place] == wanted, position_S[order][place], missing)


def placed(query_rows_Q: I64, query_rows_J: I64) -> tuple[I64, I64]:
    """(query 0 … Q - 1, label 0 … J - 1) of the labels of the evaluated queries, whose rows ascend; in the labels' order."""
    place = np.searchsorted(query_rows_Q, query_rows_J)
    mine = np.flatnonzero(np.append(query_rows_Q, -1)[place] == query_rows_J)
    return place[mine].astype(np.int64), mine
