"""Team-draft interleaving (Radlinski, Kurup and Joachims, CIKM 2008): two rankings mixed into one list, and who gets the clicks.

In each round both rankings place their best item that is not in the list yet; a coin says which one is first. A click counts
for the ranking that placed the item. Over many queries the better ranking wins more of them; of two equal ones each wins half.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

Team = Literal["a", "b"]
Item = TypeVar("Item", bound=Hashable)


@dataclass(frozen=True)
class Interleaved:
    """A mixed list."""

    items: list[Hashable]
    """Best first, each once."""
    teams: list[Team]
    """Which ranking placed each."""


def team_draft(a: Sequence[Item], b: Sequence[Item], length: int, rng: np.random.Generator) -> Interleaved:
    """Mix two rankings.

    Args:
        a, b: items, best first. length: of the list; shorter where both rankings together have fewer items.
        rng: tosses one coin a round; the same state gives the same list.
    """
    items: list[Hashable] = []
    teams: list[Team] = []
    placed: set[Hashable] = set()
    rankings: dict[Team, Sequence[Item]] = {"a": a, "b": b}
    at: dict[Team, int] = {"a": 0, "b": 0}
    while len(items) < length:
        order: tuple[Team, Team] = ("a", "b") if rng.integers(2) == 0 else ("b", "a")
        before = len(items)
        for team in order:
            ranking = rankings[team]
            while at[team] < len(ranking) and ranking[at[team]] in placed:
                at[team] += 1
            if at[team] < len(ranking) and len(items) < length:
                items.append(ranking[at[team]])
                teams.append(team)
                placed.add(ranking[at[team]])
        if len(items) == before:
            break
    return Interleaved(items, teams)


def credit(shown: Interleaved, clicked: Collection[Hashable]) -> int:
    """Clicks on b's items minus those on a's; an item that is clicked twice counts once, one that was not shown not at all."""
    hits = set(clicked)
    return sum((team == "b") - (team == "a") for item, team in zip(shown.items, shown.teams, strict=True) if item in hits)
