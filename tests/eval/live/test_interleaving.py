"""Team draft: who places what, by hand and by what must hold of any two rankings."""

from __future__ import annotations

import numpy as np
import pytest

from eval.live.interleaving import Interleaved, credit, team_draft


class Coin:
    """Falls as it is told: 0 lets a begin."""

    def __init__(self, *sides: int) -> None:
        self.sides = list(sides)

    def integers(self, _: int) -> int:
        return self.sides.pop(0)


def test_by_hand() -> None:
    # a begins: x (a), b's best that is not there is y; b begins: z, then a's next is w
    got = team_draft(["x", "y", "w", "z"], ["x", "y", "z", "w"], 4, Coin(0, 1))  # type: ignore[arg-type]
    assert (got.items, got.teams) == (["x", "y", "z", "w"], ["a", "b", "b", "a"])


@pytest.mark.parametrize("seed", range(30))
def test_whatever_the_rankings_are(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.permutation(12)[: rng.integers(0, 9)].tolist() for _ in range(2))
    length = int(rng.integers(1, 12))
    got = team_draft(a, b, length, np.random.default_rng(seed))
    assert len(got.items) == min(length, len(set(a) | set(b)))
    assert len(set(got.items)) == len(got.items), "an item is shown once"
    for team, ranking in (("a", a), ("b", b)):
        own = [item for item, side in zip(got.items, got.teams, strict=True) if side == team]
        assert own == [item for item in ranking if item in own], "a team's items keep their order"
    if len(a) >= length and len(b) >= length:
        assert abs(got.teams.count("a") - got.teams.count("b")) <= 1
    assert team_draft(a, b, length, np.random.default_rng(seed)) == got


def test_of_two_equal_rankings_each_team_places_half_at_every_position() -> None:
    ranking, rng = list(range(10)), np.random.default_rng(0)
    teams = np.array([[team == "a" for team in team_draft(ranking, ranking, 10, rng).teams] for _ in range(4000)])
    np.testing.assert_allclose(teams.mean(axis=0), 0.5, atol=0.03)


def test_a_click_counts_once_and_only_for_what_was_shown() -> None:
    shown = Interleaved(["x", "y", "z"], ["a", "b", "b"])
    assert credit(shown, ["y", "y", "other"]) == 1
    assert credit(shown, ["x", "z"]) == 0
    assert credit(shown, ["x"]) == -1
    assert credit(shown, []) == 0
