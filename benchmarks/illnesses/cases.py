"""What `benchmarks.illnesses` makes: ill trainings, each by what makes people's trainings ill, and healthy ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from benchmarks.illnesses.data import (
    Data,
    EarlierModel,
    Editions,
    ExactTags,
    FewItems,
    NarrowDomain,
    OneLabelEach,
    Plant,
    SyntheticQueries,
    catalogue,
)
from training.settings import Kind

TRAINING: Mapping[str, Any] = {"epochs": 3, "batch_size": 32}
NO_CAP = {"synthetic": {"cap": 1.0}}


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


SETTLED: tuple[Case, ...] = (
    Case(
        "healthy",
        "mined after a warm-up, 3,000 titles",
        {"mined": "healthy"},
        titles=3000,
        warmup_epochs=2,
        training={"epochs": 2},
    ),
    Case("healthy, more data", "4,000 titles, batches of 64", {"mined": "healthy"}, titles=4000, training={"batch_size": 64}),
    Case(
        "healthy, fine-tuned",
        "a model trained on earlier queries, two mined rounds, τ 0.07",
        {"mined": "healthy"},
        plants=(EarlierModel(0.5),),
        titles=3000,
        earlier_epochs=6,
        warmup_epochs=0,
        rounds=2,
        training={"temperature": 0.07, "epochs": 2},
    ),
    Case(
        "healthy, adapter",
        "an adapter on the frozen vectors of a model trained on earlier queries",
        {"mined": "healthy"},
        plants=(EarlierModel(0.5),),
        titles=3000,
        earlier_epochs=6,
        kind="adapter",
    ),
    Case(
        "easy: random",
        "few random negatives, long after they stopped teaching; the mined arm beside it is well",
        {"random": "negatives_too_easy", "mined": "healthy"},
        compare_random=True,
        titles=3000,
        warmup_epochs=4,
        training={"batch_size": 8, "hard_negatives": 4},
    ),
    Case(
        "easy: mined far away",
        "mining skips the first 800 of 1,000 hits; batches of 8",
        {"mined": "negatives_too_easy"},
        warmup_epochs=6,
        mining={"num_hits": 1000, "skip_first": 800},
        training={"batch_size": 8, "epochs": 4},
    ),
    Case(
        "false negatives",
        "six unlabelled editions of every title, one label per query, no margin when mining",
        {"mined": "negatives_too_hard_or_false"},
        plants=(OneLabelEach(), Editions(6, dropped=0.03)),
        titles=1000,
        training={"random_fraction": 0.0},
        mining={"relative_margin": "off", "num_hits": 30, "num_negatives": 10},
    ),
    Case(
        "τ = 0.5",
        "temperature 0.5 in the warm-up and in the round",
        {"mined": "temperature_too_soft"},
        training={"temperature": 0.5},
    ),
    Case(
        "τ = 0.005",
        "temperature 0.005 in the warm-up and in the round",
        {"mined": "temperature_too_sharp"},
        training={"temperature": 0.005},
    ),
    Case(
        "tiny model",
        "8 dimensions, trained for long",
        {"mined": "capacity_plateau"},
        dimension=8,
        compare_random=True,
        warmup_epochs=30,
        training={"epochs": 8, "patience": 1000},
    ),
    Case(
        "over-long",
        "120 queries fine-tune a good model for 40 epochs",
        {"mined": "overfitting"},
        plants=(EarlierModel(0.85, left=120),),
        earlier_epochs=6,
        warmup_epochs=0,
        training={"epochs": 40, "patience": 1000, "weight_decay": 0.0},
    ),
    Case(
        "collapse",
        "triplet loss on the hardest negative alone, an unlabelled edition more often than not",
        {"mined": "collapse"},
        plants=(EarlierModel(0.3), OneLabelEach(), Editions(1)),
        kind="adapter",
        earlier_epochs=2,
        warmup_epochs=0,
        mining={"relative_margin": "off", "num_negatives": 1},
        training={
            "loss": "triplet",
            "in_batch": False,
            "random_fraction": 0.0,
            "hard_negatives": 1,
            "learning_rate": 0.05,
            "gradient_clipping": 0.0,
        },
    ),
    Case(
        "forgetting",
        "a good model of plots and moods, fine-tuned on authors and series",
        {"mined": "forgetting"},
        plants=(NarrowDomain(),),
        titles=3000,
        earlier_epochs=6,
        warmup_epochs=0,
        training={"epochs": 5, "batch_size": 16},
    ),
    Case(
        "best sellers",
        "40 % of the training clicks are on ten best sellers, which are hardly ever another query's negative",
        {"mined": "popularity_collapse"},
        plants=(FewItems(share=0.4),),
        mining={"max_uses": 3},
        training={"in_batch": False, "hard_negatives": 15, "random_fraction": 3.0},
    ),
    Case(
        "forty items",
        "60 % of the training clicks are on forty items, the others were never shown",
        {"mined": "narrow_results"},
        plants=(FewItems(40, share=0.6, popular=False),),
        mining={"max_uses": 3},
        training={"in_batch": False, "hard_negatives": 15, "random_fraction": 3.0},
    ),
    Case(
        "synthetic queries",
        "training queries cut out of items behind a fixed phrase; dev has real ones, too",
        {"mined": "synthetic_drift"},
        plants=(EarlierModel(0.5), SyntheticQueries()),
        earlier_epochs=6,
        warmup_epochs=0,
        training={"sources": NO_CAP},
    ),
    Case(
        "leaked tags",
        "queries name the author and the shelf of an item they want",
        {"mined": "metadata_leakage"},
        plants=(ExactTags(),),
    ),
    Case(
        "strict margin",
        "a candidate must score 75 % below the positive",
        {"mined": "low_hit_rate"},
        mining={"relative_margin": 0.75},
    ),
)
HELD_OUT: tuple[Case, ...] = (
    Case(
        "healthy, τ = 0.02",
        "a sharper temperature than usual",
        {"mined": "healthy"},
        titles=3000,
        warmup_epochs=2,
        training={"epochs": 2, "temperature": 0.02},
    ),
    Case(
        "healthy, early",
        "one epoch after one epoch of warm-up: random negatives still teach, too",
        {"mined": "healthy", "random": "healthy"},
        titles=3000,
        warmup_epochs=1,
        compare_random=True,
        training={"epochs": 1},
    ),
    Case(
        "healthy, batch 128",
        "4,000 titles, two mined rounds, batches of 128",
        {"mined": "healthy"},
        titles=4000,
        rounds=2,
        training={"batch_size": 128},
    ),
    Case(
        "healthy, adapter at τ 0.03",
        "more data, a sharper temperature",
        {"mined": "healthy"},
        plants=(EarlierModel(0.5),),
        titles=4000,
        earlier_epochs=8,
        kind="adapter",
        training={"temperature": 0.03},
    ),
    Case(
        "easy: one random",
        "a random negative and the seven other items of a batch",
        {"random": "negatives_too_easy"},
        compare_random=True,
        titles=3000,
        warmup_epochs=6,
        training={"batch_size": 8, "hard_negatives": 1, "random_fraction": 0.0},
    ),
    Case(
        "half of the labels",
        "one label per query, no margin when mining",
        {"mined": "negatives_too_hard_or_false"},
        plants=(OneLabelEach(),),
        titles=3000,
        training={"random_fraction": 0.0},
        mining={"relative_margin": "off", "num_hits": 30, "num_negatives": 10},
    ),
    Case(
        "two editions",
        "two unlabelled editions of every title, one label per query, no margin",
        {"mined": "negatives_too_hard_or_false"},
        plants=(OneLabelEach(), Editions(2, dropped=0.05)),
        titles=1500,
        training={"random_fraction": 0.0},
        mining={"relative_margin": "off", "num_hits": 30, "num_negatives": 10},
    ),
    Case("τ = 0.2", "temperature 0.2", {"mined": "temperature_too_soft"}, training={"temperature": 0.2}),
    Case(
        "τ = 0.5, adapter",
        "temperature 0.5",
        {"mined": "temperature_too_soft"},
        plants=(EarlierModel(0.5),),
        titles=3000,
        earlier_epochs=6,
        kind="adapter",
        training={"temperature": 0.5},
    ),
    Case("τ = 0.01", "temperature 0.01", {"mined": "temperature_too_sharp"}, training={"temperature": 0.01}),
    Case(
        "tiny model, 16",
        "16 dimensions, trained for long",
        {"mined": "capacity_plateau"},
        dimension=16,
        compare_random=True,
        warmup_epochs=30,
        training={"epochs": 8, "patience": 1000},
    ),
    Case(
        "over-long, 400 queries",
        "400 queries fine-tune a good model for 15 epochs",
        {"mined": "overfitting"},
        plants=(EarlierModel(0.6, left=400),),
        earlier_epochs=6,
        warmup_epochs=0,
        training={"epochs": 15, "patience": 1000},
    ),
    Case(
        "collapse by rate",
        "an adapter at a thousand times its learning rate, without clipping",
        {"mined": "collapse"},
        plants=(EarlierModel(0.5),),
        titles=3000,
        earlier_epochs=6,
        kind="adapter",
        warmup_epochs=0,
        training={"learning_rate": 1.0, "gradient_clipping": 0.0},
    ),
    Case(
        "forgetting, gently",
        "as above, at a fifth of the learning rate",
        {"mined": "forgetting"},
        plants=(NarrowDomain(),),
        titles=3000,
        earlier_epochs=6,
        warmup_epochs=0,
        training={"epochs": 5, "batch_size": 16, "learning_rate": 0.002},
    ),
    Case(
        "best sellers, 15 %",
        "15 % of the training clicks are on ten best sellers",
        {"mined": "popularity_collapse"},
        plants=(FewItems(share=0.15),),
        mining={"max_uses": 3},
        training={"in_batch": False, "hard_negatives": 15, "random_fraction": 3.0},
    ),
    Case(
        "two hundred items",
        "60 % of the training clicks are on two hundred items",
        {"mined": "narrow_results"},
        plants=(FewItems(200, share=0.6, popular=False),),
        mining={"max_uses": 3},
        training={"in_batch": False, "hard_negatives": 15, "random_fraction": 3.0},
    ),
    Case(
        "half synthetic",
        "made queries beside the real ones, half of each epoch at most",
        {"mined": "synthetic_drift"},
        plants=(EarlierModel(0.5), SyntheticQueries(kept=True)),
        earlier_epochs=6,
        warmup_epochs=0,
        training={"sources": {"synthetic": {"cap": 0.5}}},
    ),
    Case(
        "leaked tags, half",
        "every other query names author and shelf of an item it wants",
        {"mined": "metadata_leakage"},
        plants=(ExactTags(0.5),),
    ),
    Case(
        "strict position",
        "mining skips the first 95 of 100 hits",
        {"mined": "low_hit_rate"},
        mining={"skip_first": 95, "num_negatives": 5},
    ),
)
CASES: tuple[Case, ...] = (*SETTLED, *(replace(case, held_out=True) for case in HELD_OUT))
BY_NAME = {case.name: case for case in CASES}
