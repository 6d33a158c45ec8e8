"""The retriever as the training loop sees it: its encoder, a step of contrastive training, and validation by recall."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from training.engine.engine import Place
from training.feed.batches import describe_mixture
from training.feed.feed import Feed
from training.feed.mixed import MixedPlan
from training.objective.objective import Objective
from training.objective.temperature import LEARNING_RATE, Temperature
from training.rank.start import find_budget, settings_here, start_encoder
from training.retriever.load import Loaded
from training.retriever.step import train_step
from training.retriever.validation import recall_per_query
from training.settings import VALIDATION_K
from training.task import TrainTask


class Retriever:
    """One rank's share of it; see `training.subject.Subject`."""

    measure = "recall"

    def __init__(
        self, task: TrainTask, place: Place, loaded: Loaded, *, budget_tokens: int | None, say: Callable[[str], None]
    ) -> None:
        """
        Args:
            budget_tokens: of a pack, as the training before this one found; None: found by a probe, unless the task says it.
            say: a line that a person should see.
        """
        self._task, self._place = task, place
        self.tables, self.check = loaded.tables, loaded.check
        self.validates = self.check is not None
        self.plan = replace(loaded.plan, rank=place.rank)
        self.settings, self.own = settings_here(task, self.plan)
        self.peak_rate = self.settings.peak_learning_rate(task.kind)
        self.recalls = np.zeros(0)
        """[V] of each validation query, as of the latest epoch."""
        if mixture := describe_mixture(self.plan):
            say(mixture)
        if isinstance(self.plan, MixedPlan):
            say(self.plan.describe())
        self.model = start_encoder(task, place, say)
        together = task.settings.batch_size * (2 + self.plan.hard + self.plan.random)
        known = task.budget_tokens or budget_tokens
        self.budget = known or find_budget(self.model, self.tables.items, place, seed=task.seed, together=together)
        self.temperature = Temperature(task.settings.temperature)

    def begin(self, engine: Any) -> None:
        """See `Subject`."""
        self._engine = engine
        self._objective = Objective(self.settings, self.tables, rank=self._place.rank, device=self._place.device)
        self._feed = Feed(
            self.plan,
            self.tables,
            self.model,
            self.settings,
            budget_tokens=self.budget,
            device=self._place.device.type,
            equal_packs=self.settings.grad_cache or engine.zero_optimization_stage() == 3,
        )

    def micro_step(
        self, epoch: int, index: int, *, then: tuple[int, int] | None, boundary: bool, rate: float
    ) -> dict[str, float]:
        """See `Subject`."""
        started = time.monotonic()
        step = self._feed.take(epoch, index, then=then)
        waited, used = time.monotonic() - started, self.temperature.value
        cached = self.settings.grad_cache
        seen = train_step(self._engine, self._objective, step, self._place, temperature=used, cached=cached, boundary=boundary)
        if self.settings.learn_temperature:
            self.temperature.add_gradient(seen.log_temperature / self.settings.accumulation)
            if boundary:
                self.temperature.step(rate / self.peak_rate * LEARNING_RATE)
        return {
            **seen.figures,
            "temperature": used,
            "items": len(step.columns),
            "tokens": step.tokens,
            "padding": 1 - step.tokens / max(1, step.padded),
            "seconds_waiting": waited,
            "seconds_geometry": seen.geometry_seconds,
        }

    def validate(self) -> float:
        """See `Subject`."""
        assert self.check is not None
        self.recalls = recall_per_query(
            self._engine, self.check, self.tables, VALIDATION_K, self._place, budget_tokens=self.budget
        )
        return float(self.recalls.mean())

    def progress(self, figures: dict[str, float]) -> str:
        """See `Subject`."""
        return f"effective negatives {figures['effective_negatives']:.1f}"

    def on_divergence(self, rate: float) -> str:
        """See `Subject`."""
        return (
            f"of round {self._task.round}, with learning rate {rate:.2e} and temperature {self.temperature.value:.4g}; lower "
            f'training.learning_rate (try a third), or set training.precision = "float32". The rounds before this one are kept'
        )

    def on_full_memory(self) -> str:
        """See `Subject`."""
        return (
            f"a step of {self.plan.together} queries on {self._place.world} rank(s) does not fit the GPU's memory "
            f"({self.plan.hard} mined and {self.plan.random} random negatives each); set training.grad_cache = true, which needs "
            f"the memory of {self.budget} tokens only, or lower training.batch_size"
        )

    def state(self) -> dict[str, float]:
        """See `Subject`."""
        return self.temperature.state()

    def restore(self, state: dict[str, float]) -> None:
        """See `Subject`."""
        self.temperature.restore(state)

    def figures(self) -> dict[str, Any]:
        """See `Subject`."""
        return {"items_loaded": len(self.tables.items), "temperature": self.temperature.value}

    def close(self) -> None:
        """See `Subject`."""
        self._feed.close()
