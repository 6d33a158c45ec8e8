"""`hardmine compare-live --outcome LOG`: an interleaving or A/B log, read and judged.

A row of the log is one of

    query_id (or unit), clicks_a, clicks_b          interleaving, counted by somebody else
    arm (a or b), success (0 or 1) [, unit]         A/B: a unit succeeds if one of its rows does
    UBI queries and events                          interleaving, as `search --serve --log` and its clients log them: queries
                                                    with teams, clicks with the query's id
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster.errors import ConfigError, DataError
from eval.live.interleaving import Interleaved, Team, credit
from eval.live.outcome import LiveTest, ab_test, interleaving_test, look_limits
from jobs.serving.live.log_files import ids_of, read_rows_of

CLICKS = ("click", "item_click", "conversion", "cart", "add_to_cart", "purchase")
"""action_name of UBI events that count as a click."""
COUNTED, TEAMS, ARMS = {"clicks_a", "clicks_b"}, "teams", {"arm", "success"}


@dataclass(frozen=True)
class Plan:
    """What was decided before the test started."""

    units: int | None = None
    """Size of the test; None: it is taken as it is, and was not looked at before."""
    looks: int = 1
    """Equally spaced looks, the last one at its end."""
    limit: float = 0.05
    """Of p, of all looks together."""


@dataclass(frozen=True)
class Units:
    """The units of a test in the order in which they began."""

    credits: list[float] | None
    """Interleaving: clicks on b's items minus those on a's, of each unit."""
    arms: list[tuple[Team, bool]] | None
    """A/B: (side, success) of each unit."""

    def __len__(self) -> int:
        return len(self.credits if self.credits is not None else self.arms or ())


def judge_outcome(path: Path, plan: Plan) -> dict[str, Any]:
    """What `--json` prints: the test, its look, and what to do.

    Raises:
        DataError: the log cannot be read. ConfigError: a look that was not planned.
    """
    units = read_units(path)
    look, size, limit = planned_look(len(units), plan)
    result = _test(units, size, limit)
    final = look == plan.looks
    return result.as_json() | {
        "look": look,
        "looks": plan.looks,
        "planned_units": plan.units,
        "ignored_units": len(units) - size,
        "final": final,
        "answer": _answer(result, final),
        "assumes": _assumptions(result, plan),
    }


def planned_look(units: int, plan: Plan) -> tuple[int, int, float]:
    """(number of the look, units that it judges, limit of its p).

    Raises:
        ConfigError: the test has not reached a look that was planned.
    """
    if plan.units is None:
        if plan.looks > 1:
            raise ConfigError(f"--looks {plan.looks} needs the size of the test: add --planned UNITS")
        return 1, units, plan.limit
    sizes = [plan.units * look // plan.looks for look in range(1, plan.looks + 1)]
    reached = [look for look, size in enumerate(sizes, start=1) if units >= size]
    if not reached:
        more = f"the first look was planned at {sizes[0]:,}" if plan.looks > 1 else "no look before its end was planned"
        raise ConfigError(
            f"the test is planned for {plan.units:,} units and has {units:,}; {more}. An unplanned look finds effects that are "
            f"not there: wait, or plan looks before a test starts (--looks 4), which asks more of the early ones"
        )
    limits = look_limits(plan.looks, plan.limit) if plan.looks > 1 else [plan.limit]
    look = reached[-1]
    return look, sizes[look - 1], limits[look - 1]


def _test(units: Units, size: int, limit: float) -> LiveTest:
    if units.credits is not None:
        return interleaving_test(np.array(units.credits[:size]), limit=limit)
    some = (units.arms or [])[:size]
    sides = [[success for arm, success in some if arm == team] for team in ("a", "b")]
    if not all(sides):
        missing = "ab"[[bool(side) for side in sides].index(False)]
        raise DataError(f"expected units of both arms, found none of arm {missing}; give the log of the whole test")
    a, b = ((sum(side), len(side)) for side in sides)
    return ab_test(a, b, limit=limit)


def _answer(result: LiveTest, final: bool) -> str:
    if result.winner is not None:
        early = "" if final else " The limit of this look is passed, so the test may end here."
        return f"{result.winner} is better.{early}"
    if not final:
        return "No answer yet: go on to the next planned look."
    size = f"{100 * result.detectable:.1f} points"
    return f"No difference was found. A test of this size finds one of {size} four times in five; a smaller one may be there."


def _assumptions(result: LiveTest, plan: Plan) -> list[str]:
    told = ["units are independent of each other: count a person once, not each of their queries"]
    if result.kind == "interleaving":
        told.append("a click means the item was wanted, and is as likely for an item of either team")
    if plan.units is None:
        told.append("the size was fixed before the test, and nobody looked before its end (else name it: --planned, --looks)")
    return told


def read_units(path: Path) -> Units:
    """The units of a log. Raises DataError: it is of no known form, or mixes two."""
    rows = list(read_rows_of(path))
    names = set().union(*(row.keys() for _, row in rows)) if rows else set()
    has_teams = any(_teams(row) for _, row in rows)
    forms = [form for form, there in (("c", names >= COUNTED), ("arms", names >= ARMS), ("teams", has_teams)) if there]
    if len(forms) != 1:
        raise DataError(
            f"{path}: expected the columns clicks_a and clicks_b (interleaving), arm and success (A/B), or UBI queries with "
            f"teams and their events, found {'two of these' if forms else ', '.join(sorted(names)) or 'no row'}"
        )
    if forms == ["arms"]:
        return Units(None, _arms(rows))
    return Units(list((_counted if forms == ["c"] else _interleaved)(rows)), None)


def _arms(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> list[tuple[Team, bool]]:
    units: dict[str, tuple[Team, bool]] = {}
    for place, row in rows:
        arm, success = str(row.get("arm")).strip().lower(), _number(row, "success", place)
        if arm not in ("a", "b"):
            raise DataError(f"{place}: expected arm a or b, found {row.get('arm')!r}")
        if success not in (0, 1):
            raise DataError(f"{place}: expected success 0 or 1, found {row['success']!r}")
        unit = str(row["unit"]) if row.get("unit") not in (None, "") else place
        before = units.get(unit, (arm, False))
        if before[0] != arm:
            raise DataError(f"{place}: unit {unit!r} was in arm {before[0]} and is in {arm}; a unit stays in one arm")
        units[unit] = ("a" if arm == "a" else "b", before[1] or success == 1)
    return list(units.values())


def _counted(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterable[float]:
    balance: dict[str, float] = {}
    for place, row in rows:
        unit = next((str(row[name]) for name in ("unit", "query_id") if row.get(name) not in (None, "")), place)
        gain = _number(row, "clicks_b", place) - _number(row, "clicks_a", place)
        balance[unit] = balance.get(unit, 0.0) + gain
    return balance.values()


def _interleaved(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterable[float]:
    """Credits from queries with teams, and clicks on what they showed. A person (client_id) is one unit, if they are named."""
    shown: dict[str, Interleaved] = {}
    unit_of: dict[str, str] = {}
    clicked: dict[str, set[str]] = {}
    for place, row in rows:
        query_id = str(row.get("query_id"))
        teams = _teams(row)
        if teams:
            items = ids_of(row.get("query_response_hit_ids"))
            if len(items) != len(teams):
                raise DataError(f"{place}: expected a team for each of {len(items)} hits, found {len(teams)}")
            shown[query_id] = Interleaved(list(items), teams)
            unit_of[query_id] = str(row.get("client_id") or query_id)
        elif row.get("action_name") in CLICKS:
            clicked.setdefault(query_id, set()).add(clicked_item(row))
    balance: dict[str, float] = {}
    for query_id, mixed in shown.items():
        unit = unit_of[query_id]
        balance[unit] = balance.get(unit, 0.0) + credit(mixed, clicked.get(query_id, ()))
    return balance.values()


def clicked_item(row: Mapping[str, Any]) -> str:
    """The id of what a UBI event is about."""
    attributes = row.get("event_attributes")
    about = attributes.get("object") if isinstance(attributes, dict) else None
    item = about.get("object_id") if isinstance(about, dict) else None
    return str(item or row.get("object_id"))


def _teams(row: Mapping[str, Any]) -> list[Team]:
    attributes = row.get("query_attributes")
    teams = attributes.get(TEAMS) if isinstance(attributes, dict) else row.get(TEAMS)
    return [team for team in ids_of(teams) if team in ("a", "b")]  # type: ignore[misc]


def _number(row: Mapping[str, Any], name: str, place: str) -> float:
    try:
        return float(row[name])
    except (TypeError, ValueError) as error:
        raise DataError(f"{place}: expected a number as {name}, found {row[name]!r}") from error
