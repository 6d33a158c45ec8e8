"""What the experiments of docs/why-hard-negatives.md share: one catalogue, a model warmed up on it, and how they print."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from benchmarks.shared.command import Row
from benchmarks.why.training import F64, Plan, embed, new_adapter, train
from benchmarks.why.world import Recipe, World, make_world
from eval.significance import paired_bootstrap

TEMPERATURES = (0.02, 0.05, 0.07, 0.1, 0.2, 0.5)
RANDOM_PLAN = Plan(random=8)
"""Eight negatives of a query's own and nothing else in the denominator."""
MINED_PLAN = Plan(hard=6, random=2)
"""Eight too, a quarter of them random (the product: 7 and 2)."""
BATCH_PLAN = Plan(random=8, in_batch=True)
"""The items of the batch's other queries as well."""


@dataclass
class Bench:
    """What the experiments share: one catalogue, and a model warmed up on it with random negatives."""

    seed: int
    out: Path | None
    """Folder of the pictures; None: no pictures."""
    formats: Sequence[str] = ("svg",)

    def draw(self, name: str, drawer: Callable[..., None], *figures: Any) -> None:
        """Draw a picture in every format, if pictures are wanted."""
        if self.out is not None:
            drawer(*figures, [self.out / f"{name}.{ending}" for ending in self.formats])

    @cached_property
    def world(self) -> World:
        return make_world(Recipe(), self.seed)

    @cached_property
    def _warm(self) -> tuple[nn.Module, list[dict[str, Any]]]:
        model = new_adapter(self.seed)
        return model, train(model, self.world, replace(RANDOM_PLAN, steps=300), self.seed, validate_every=50)

    @property
    def warmup(self) -> list[dict[str, Any]]:
        """Its lines."""
        return self._warm[1]

    def start(self) -> nn.Module:
        """A copy of the warm model."""
        return copy.deepcopy(self._warm[0])

    @cached_property
    def negatives(self) -> tuple[F64, F64]:
        """(cosine of the positive [Q], cosines of all other items, highest first [Q, N - 1]) of 300 dev queries, warm model."""
        rows = self.world.dev_rows[:300]
        model = self.start()
        scores_QN = (embed(model, self.world.queries_QD[rows]) @ embed(model, self.world.items_ND).T).numpy()
        positive = self.world.positive_Q[rows][:, None]
        positives_Q = np.take_along_axis(scores_QN, positive, 1)[:, 0].astype(np.float64)
        np.put_along_axis(scores_QN, positive, -np.inf, 1)
        return positives_Q, -np.sort(-scores_QN, axis=1)[:, :-1].astype(np.float64)


ROWS: list[Row] = []
"""The rows of all tables so far, as --json prints them."""


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print one, as Markdown; and keep its rows."""
    print(f"\n**{title}**\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)
        ROWS.append({"case": f"{title}: {row[0]}"} | dict(zip(columns[1:], row[1:], strict=True)))


def compare(title: str, ours_Q: F64, theirs_Q: F64) -> None:
    """Print a difference with its interval."""
    found = paired_bootstrap(ours_Q, theirs_Q)
    print(f"{title}: {100 * found.mean:+.1f} points [{100 * found.low:+.1f}, {100 * found.high:+.1f}]")
