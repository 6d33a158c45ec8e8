"""One case of `benchmarks.illnesses`: a run, how it was made ill, and what the diagnosis should say of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.illnesses.data import Data, Plant, catalogue
from training.settings import Kind

TRAINING: Mapping[str, Any] = {"epochs": 3, "batch_size": 32}


@dataclass(frozen=True)
class Case:
    """A run, and what the diagnosis should say of its arms."""

    name: str
    made: str
    """How, for the reader of the table."""
    expected: Mapping[str, str]
    """Arm -> name of the finding that should come first; "healthy": none of weight. An arm that is not named may be anything."""
    plants: tuple[Plant, ...] = ()
    titles: int = 2000
    kind: Kind = "static"
    dimension: int = 128
    hidden: int = 256
    """Of an adapter."""
    earlier_epochs: int = 0
    """Epochs on split "earlier" that made the off-the-shelf model; 0: it is new."""
    warmup_epochs: int = 3
    rounds: int = 1
    compare_random: bool = False
    held_out: bool = False
    """No threshold was settled on it: a milder dose, or another way to make the same."""
    training: Mapping[str, Any] = field(default_factory=dict)
    mining: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "training", TRAINING | dict(self.training))

    def data(self, seed: int) -> Data:
        """The case's data; another catalogue for each seed."""
        data = catalogue(self.titles, seed)
        for number, plant in enumerate(self.plants):
            data = plant(data, np.random.default_rng([seed, number]))
        return data
