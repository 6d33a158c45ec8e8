"""The training loop of one round, on one rank: epochs of steps, validation by recall, the best model kept.

The loop knows torch.distributed and DeepSpeed, not Ray: `training.trainer` starts it in Ray Train workers.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from cluster.errors import ConfigError, TrainingDiverged
from cluster.folders import describe_folder
from cluster.progress import post
from training.engine.checkpoint import Checkpointer, TrainingState, why_not
from training.engine.engine import Place, full_state, set_learning_rate, start_engine
from training.engine.schedule import learning_rate
from training.engine.upload import KeptModel
from training.feed.batches import BatchPlan, describe_mixture
from training.feed.feed import Feed
from training.objective.objective import Objective
from training.objective.temperature import Temperature
from training.start import find_budget, start_encoder
from training.step import NotFiniteError, train_step
from training.task import TrainTask, load_tables
from training.telemetry.telemetry import Telemetry
from training.telemetry.trackers import make_trackers
from training.validation import ValidationSet, choose_validation, recall_per_query


@dataclass
class Progress:
    """What changes while a round trains."""

    epoch: int = 0
    """Epochs finished."""
    index: int = 0
    """Micro-steps done of the epoch that is under way."""
    step: int = 0
    """Optimizer steps finished."""
    validation: list[float] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    """Of earlier attempts, up to the state that this one goes on from."""


class Trainer:
    """One rank's training of one round."""

    def __init__(self, task: TrainTask, place: Place) -> None:
        torch.set_num_threads(task.threads)
        self.task, self.place, self.settings = task, place, task.settings
        self.tables, examples, dev, near = load_tables(task)
        self.plan = BatchPlan.of(
            examples,
            task.settings,
            num_items=len(self.tables.items),
            mined=bool(task.negatives),
            seed=task.seed * 1009 + task.round,
            rank=place.rank,
            world=place.world,
        )
        if self.plan.micro_steps < task.settings.accumulation:
            raise ConfigError(
                f"an epoch has {self.plan.micro_steps} micro-step(s) of {task.settings.batch_size} "
                f"queries on each of {place.world} rank(s), fewer than training.accumulation = "
                f"{task.settings.accumulation}; lower training.accumulation or training.batch_size"
            )
        self.notes: list[str] = []
        self.recalls = np.zeros(0)
        """[V] of each validation query, as of the latest epoch."""
        if mixture := describe_mixture(self.plan):
            self._note(mixture)
        self.check: ValidationSet | None = choose_validation(dev, near, self.tables.labels, task.settings, task.seed)
        self.checkpoints = Checkpointer(task.store, task.folder, place, keep=task.settings.keep_checkpoints)
        state = self._usable_state()
        self.encoder = start_encoder(task, place, self._note)
        self.budget = (
            task.budget_tokens
            or (state.budget_tokens if state else None)
            or find_budget(
                self.encoder,
                self.tables.items,
                place,
                seed=task.seed,
                together=task.settings.batch_size * (2 + self.plan.hard + self.plan.random),
            )
        )
        self.engine = start_engine(self.encoder, task.settings, place, own=task.deepspeed)
        self.temperature, self.progress = Temperature.start(task.settings), Progress()
        self.trackers = make_trackers(
            task.settings.trackers if place.rank == 0 else [],
            run=task.name,
            number=task.round,
            store=task.store,
            folder=task.folder,
            config=task.settings.model_dump(mode="json") | {"encoder": task.kind},
            say=lambda text: post(task.mailbox if place.rank == 0 else None, "trackers", text),
        )
        self.telemetry = Telemetry(task.store, task.folder, active=place.rank == 0, trackers=self.trackers)
        if state is not None:
            self._resume(state)
        self.objective = Objective(task.settings, self.tables, rank=place.rank, device=place.device)
        self.feed = Feed(
            self.plan,
            self.tables,
            self.encoder,
            task.settings,
            budget_tokens=self.budget,
            device=place.device.type,
            equal_packs=task.settings.grad_cache or self.engine.zero_optimization_stage() == 3,
        )
        self._temperature_gradient = 0.0
        self._started = time.monotonic()

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        return max(1, self.plan.micro_steps // self.settings.accumulation)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole round, if it is not stopped early."""
        planned = self.steps_per_epoch * self.task.epochs
        return min(planned, self.task.steps or planned, self.task.cycles * (self.settings.max_steps or planned))

    def _usable_state(self) -> TrainingState | None:
        state = self.checkpoints.newest()
        reason = why_not(state, self.place) if state is not None else None
        if reason is None:
            return state
        self._note(f"{reason}: training starts anew")
        self.checkpoints.forget()  # the models it names will be replaced
        return None

    def _resume(self, state: TrainingState) -> None:
        self.checkpoints.restore(self.engine, state)
        self.progress = Progress(state.epoch, state.index, state.step, list(state.validation), dict(state.best), state.seconds)
        if state.temperature:
            self.temperature = Temperature.of(state.temperature)
        self.telemetry.resume(state.telemetry)

    def run(self, on_epoch: Callable[[dict[str, float]], None]) -> dict[str, Any]:
        """Train to the end. Collective; returns the round's result (the same on every rank).

        Raises:
            TrainingDiverged: the loss is NaN or infinite; names the step.
            ConfigError: the GPU's memory is too small for a step.
        """
        self._started = time.monotonic()
        try:
            while self.progress.epoch < self.task.epochs and self.progress.step < self.total_steps and not self._stops():
                self._epoch()
                self._after_epoch()
                on_epoch({"epoch": float(self.progress.epoch), "recall": self.progress.validation[-1]})
            self.checkpoints.wait()
            self.telemetry.write_parquet()
        except torch.cuda.OutOfMemoryError as error:
            raise ConfigError(
                f"a step of {self.settings.batch_size} queries per rank does not fit the GPU's memory "
                f"({self.plan.hard} mined and {self.plan.random} random negatives each); set "
                f"training.grad_cache = true, which needs the memory of {self.budget} tokens only, or lower "
                f"training.batch_size"
            ) from error
        finally:
            self.feed.close()
            self.trackers.close(failed=sys.exc_info()[0] is not None)
        return self._result()

    def _stops(self) -> bool:
        """Whether the policy that was handed over ends the round after the epochs so far; then the result says why."""
        # without dev queries there is no recall that could stop rising; and a cycle that ends low is no reason to leave out
        # the next one, which starts with a high learning rate again
        if self.task.stopping is None or self.check is None or self.task.cycles > 1:
            return False
        ruling = self.task.stopping(self.progress.validation, patience=self.settings.patience)
        if ruling.stops:
            self._note(ruling.reason)
        return ruling.stops

    def _epoch(self) -> None:
        accumulation = self.settings.accumulation
        for index in range(self.progress.index, self.steps_per_epoch * accumulation):
            boundary = (index + 1) % accumulation == 0
            self._micro_step(index, boundary=boundary)
            self.progress.index = index + 1
            if boundary:
                self.progress.step += 1
                if self.progress.step >= self.total_steps:
                    break
                every = self.settings.checkpoint_steps
                if every and self.progress.step % every == 0 and index + 1 < self.steps_per_epoch * accumulation:
                    self._checkpoint()
        self.progress.epoch += 1
        self.progress.index = 0

    def _after(self, index: int) -> tuple[int, int] | None:
        """(epoch, micro-step) that comes after one; None after the last."""
        if index + 1 < self.steps_per_epoch * self.settings.accumulation:
            return self.progress.epoch, index + 1
        return (self.progress.epoch + 1, 0) if self.progress.epoch + 1 < self.task.epochs else None

    def _micro_step(self, index: int, *, boundary: bool) -> None:
        started = time.monotonic()
        step = self.feed.take(self.progress.epoch, index, then=self._after(index))
        waited = time.monotonic() - started
        rate = self._rate()
        set_learning_rate(self.engine, rate)
        try:
            seen = train_step(
                self.engine,
                self.objective,
                step,
                self.place,
                temperature=self.temperature.value,
                cached=self.settings.grad_cache,
                boundary=boundary,
            )
        except NotFiniteError as error:
            raise TrainingDiverged(self._diverged(f"the loss is {error},", self.progress.step + 1)) from None
        self.engine.step()
        used = self.temperature.value
        self._learn_temperature(seen.log_temperature, boundary=boundary)
        seconds = time.monotonic() - started
        norm = self.engine.get_global_grad_norm()
        speed = self.plan.batch_size * self.place.world / seconds
        self.telemetry.add(
            {
                "round": self.task.round,
                "epoch": self.progress.epoch,
                "step": self.progress.step + 1,
                **seen.figures,
                "learning_rate": rate,
                "temperature": used,
                "gradient_norm": float(norm) if norm is not None else None,
                "items": len(step.columns),
                "tokens": step.tokens,
                "padding": 1 - step.tokens / max(1, step.padded),
                "queries_per_second": speed,
                "tokens_per_second": step.tokens * self.place.world / seconds,
                "seconds": seconds,
                "seconds_waiting": waited,
                "seconds_geometry": seen.geometry_seconds,
            }
        )
        self._say(
            f"step {self.progress.step + 1}/{self.total_steps}  loss {seen.figures['loss']:.4f}  effective negatives "
            f"{seen.figures['effective_negatives']:.1f}  {speed:.1f} queries/s"
        )

    def _learn_temperature(self, gradient: float, *, boundary: bool) -> None:
        if not self.settings.learn_temperature:
            return
        self._temperature_gradient += gradient / self.settings.accumulation
        if boundary:
            rate = self._rate() / self.settings.peak_learning_rate(self.task.kind) * self.settings.temperature_learning_rate
            self.temperature.update(self._temperature_gradient, rate, self.settings)
            self._temperature_gradient = 0.0

    def _diverged(self, what: str, step: int) -> str:
        return (
            f"{what} no longer finite at step {step} of round {self.task.round}, with learning rate "
            f"{self._rate():.2e} and temperature {self.temperature.value:.4g}; lower training.learning_rate "
            f'(try a third), or set training.precision = "float32". The rounds before this one are kept'
        )

    def _rate(self) -> float:
        return learning_rate(
            self.progress.step,
            total_steps=self.total_steps,
            warmup_fraction=self.settings.warmup_fraction,
            peak=self.settings.peak_learning_rate(self.task.kind),
            cycles=self.task.cycles,
        )

    def _after_epoch(self) -> None:
        figure = 0.0
        if self.check is not None:
            self.recalls = recall_per_query(
                self.engine, self.check, self.tables, self.settings.validation_k, self.place, budget_tokens=self.budget
            )
            figure = float(self.recalls.mean())
            self.telemetry.event({"epoch": self.progress.epoch, "recall": figure})
        self.progress.validation.append(figure)
        superseded = self.progress.best.get("prefix")
        model = None
        if figure >= max(self.progress.validation):  # of equal ones the later: it saw more
            model = self._keep(figure)
        if self.progress.epoch >= self.task.epochs or self.progress.step >= self.total_steps:
            if model is not None:
                model.store(self.task.store)
            return
        # the model that was best goes only when no saved state names it any more
        self._checkpoint([superseded] if superseded not in (None, self.progress.best["prefix"]) else [], model)

    def _checkpoint(self, superseded: Sequence[str] = (), model: KeptModel | None = None) -> None:
        self.telemetry.flush()
        self.checkpoints.save(
            self.engine,
            TrainingState(
                epoch=self.progress.epoch,
                index=self.progress.index,
                step=self.progress.step,
                world=self.place.world,
                validation=list(self.progress.validation),
                best=dict(self.progress.best),
                telemetry=self.telemetry.lines,
                seconds=self._seconds(),
                temperature=self.temperature.state(),
                budget_tokens=self.budget,
            ),
            superseded=superseded,
            model=model,
        )

    def _keep(self, figure: float) -> KeptModel | None:
        """Note the model as it is now as the best; returns it, on rank 0, still to be uploaded."""
        state = full_state(self.engine, self.place)
        prefix = f"{self.task.folder}/model-{self.progress.epoch:03d}"
        manifest: list[Any] = [None]
        kept = None
        # the last step's loss was computed before its update: what is kept is looked at itself
        if self.place.rank == 0 and all(bool(value.isfinite().all()) for value in state.values()):
            kept = KeptModel(tempfile.TemporaryDirectory(prefix="hardmine-model-", ignore_cleanup_errors=True), prefix)
            self.encoder.save(Path(kept.local.name), state)
            manifest = [describe_folder(Path(kept.local.name), prefix)]
        if self.place.world > 1:
            dist.broadcast_object_list(manifest, src=0)
        if manifest[0] is None:
            raise TrainingDiverged(self._diverged("the weights are", self.progress.step))
        self.progress.best = {
            "epoch": self.progress.epoch,
            "step": self.progress.step,
            "recall": figure,
            "model": manifest[0],
            "prefix": prefix,
        }
        return kept

    def _seconds(self) -> float:
        return self.progress.seconds + time.monotonic() - self._started

    def _result(self) -> dict[str, Any]:
        return {
            "steps": self.progress.step,
            "epochs": self.progress.epoch,
            "validation": self.progress.validation,
            "best": self.progress.best,
            "train_loss": self.telemetry.mean_loss(),
            "seconds": self._seconds(),
            "examples": len(self.plan.examples),
            "ranks": self.place.world,
            "temperature": self.temperature.value,
            "budget_tokens": self.budget,
            "notes": self.notes,
            "checkpoint_seconds": dict(self.checkpoints.seconds),
        }

    def _note(self, text: str) -> None:
        """Say something that a person should still see when training is over."""
        self.notes.append(text)
        self._say(text)

    def _say(self, text: str) -> None:
        post(self.task.mailbox if self.place.rank == 0 else None, "train", text)
