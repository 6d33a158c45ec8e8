"""The rules that need a whole list or a whole session: skipped, quick return, dwell, reformulated, not cited. Pure.

Q queries, P pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cluster.tables.tables import I64
from jobs.pairs.sessions.joined import Bool, Joined
from jobs.pairs.settings import SignalSettings
from jobs.pairs.signals import POSITIVE_ACTIONS

QUICK_RETURN_S = 10.0
"""Seconds within which somebody who clicked is back, so that the click counts against the result."""
REFORMULATED_S = 30.0
"""Seconds within which another query of the session that gets a click counts as a reformulation."""
EXAMINED = 10
"""Results of a query that a user who reformulates has looked at."""


@dataclass
class Evidence:
    """What the rules say."""

    used: Bool
    """[P] any action for it"""
    dwell: Bool
    quick_return: Bool
    skipped: Bool
    reformulated: Bool
    not_cited: Bool
    query_reformulated: Bool
    """[Q]"""
    query_without_click: Bool
    """[Q] it showed results, and nothing in its first ten was used."""


def apply_rules(joined: Joined, settings: SignalSettings) -> Evidence:
    """Every rule, for every pair."""
    queries = len(joined.query)
    used = np.logical_or.reduce([joined.did[name] for name in POSITIVE_ACTIONS])
    clicked = joined.did["click"] | joined.did["dwell"]
    gap = _seconds_until_next(joined, used)
    seconds = np.where(np.isnan(joined.dwell), gap, joined.dwell)
    kept = np.logical_or.reduce([joined.did[name] for name in POSITIVE_ACTIONS if name not in ("click", "dwell")])
    counted = settings.weights.get("quick_return") != 0
    with np.errstate(invalid="ignore"):
        dwell = clicked & (seconds >= settings.dwell_s)
        quick = clicked & (seconds < QUICK_RETURN_S) & ~kept & counted
    dwell |= joined.did["dwell"] & np.isnan(joined.dwell)  # "read", without seconds
    cites = _any(joined.did["citation"], joined.pair_query, queries)
    lowest = np.zeros(queries, np.int64)
    np.maximum.at(lowest, joined.pair_query[used & joined.shown], joined.position[used & joined.shown])
    above = joined.shown & ~used & (joined.position > 0) & (joined.position < lowest[joined.pair_query])
    answered = cites[joined.pair_query]
    reformulated, success = _reformulated(joined, used, REFORMULATED_S)
    return Evidence(
        used=used,
        dwell=dwell,
        quick_return=quick,
        skipped=above & ~answered,
        reformulated=_of_reformulated(joined, used, success),
        not_cited=joined.shown & answered & ~used,
        query_reformulated=reformulated,
        query_without_click=_without_click(joined, used),
    )


def _any(flags: Bool, query: I64, queries: int) -> Bool:
    result = np.zeros(queries, bool)
    result[query[flags]] = True
    return result


def _seconds_until_next(joined: Joined, used: Bool) -> np.ndarray:  # type: ignore[type-arg]
    """[P] seconds from the click until the session goes on; NaN: it does not, or there are no times."""
    clicks = np.flatnonzero(used & (joined.clicked_at > 0))
    session = np.concatenate([joined.session[joined.pair_query[clicks]], joined.session])
    time = np.concatenate([joined.clicked_at[clicks], joined.time])
    order = np.lexsort((time, session))
    seconds = np.full(len(used), np.nan)
    following = order[1:]
    same = (session[order[:-1]] == session[following]) & (session[following] != 0) & (time[order[:-1]] > 0)
    gap = (time[following] - time[order[:-1]]) / 1000.0
    first = order[:-1]
    of_click = same & (first < len(clicks)) & (gap > 0)
    seconds[clicks[first[of_click]]] = gap[of_click]
    return seconds


def _reformulated(joined: Joined, used: Bool, within_s: float) -> tuple[Bool, I64]:
    """([Q] the next query of the session came soon, in other words; [Q] that query's row if it got a click, else -1)."""
    queries = len(joined.query)
    has_use = _any(used, joined.pair_query, queries)
    order = np.lexsort((joined.query, joined.time, joined.session))
    now, then = order[:-1], order[1:]
    soon = (
        (joined.session[now] == joined.session[then])
        & (joined.session[now] != 0)
        & (joined.time[now] > 0)
        & (joined.time[then] - joined.time[now] <= 1000 * within_s)
        & (joined.time[then] > joined.time[now])
        & (joined.key[now] != joined.key[then])
        & ~has_use[now]
    )
    reformulated = np.zeros(queries, bool)
    reformulated[now[soon]] = True
    success = np.full(queries, -1, np.int64)
    good = soon & has_use[then]
    success[now[good]] = then[good]
    return reformulated, success


def _of_reformulated(joined: Joined, used: Bool, success: I64) -> Bool:
    """[P] shown among the first for a query that was reformulated with success, and not what was used then."""
    chosen = joined.shown & (joined.position > 0) & (joined.position <= EXAMINED) & (success[joined.pair_query] >= 0)
    places = np.flatnonzero(chosen)
    if not len(places):
        return chosen
    many = max(1, len(joined.items))
    known = joined.pair_query * many + joined.pair_item
    wanted = success[joined.pair_query[places]] * many + joined.pair_item[places]
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    chosen[places[(known[at] == wanted) & used[at]]] = False
    return chosen


def _without_click(joined: Joined, used: Bool) -> Bool:
    queries = len(joined.query)
    first = used & ((joined.position <= EXAMINED) | (joined.position == 0))
    return _any(joined.shown, joined.pair_query, queries) & ~_any(first, joined.pair_query, queries)
