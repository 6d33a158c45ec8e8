"""The training loop of one round, on one rank: epochs of steps, validation by recall, the best model kept.

The loop knows torch.distributed and DeepSpeed, not Ray: `training.distributed.trainer` starts it in Ray Train workers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from cluster.errors import ConfigError, TrainingDiverged
from cluster.session.metrics import add_to
from cluster.session.progress import post, post_often
from training.engine.checkpoint import Checkpointer, TrainingState
from training.engine.engine import Place, set_learning_rate, start_engine
from training.engine.kept_model import KeptModel, keep_model
from training.engine.schedule import Pace, Progress, learning_rate
from training.feed.batches import describe_mixture
from training.feed.feed import Feed
from training.load import Loaded, load
from training.objective.objective import Objective
from training.objective.temperature import LEARNING_RATE, Temperature
from training.settings import VALIDATION_K
from training.start import find_budget, settings_here, start_encoder, start_trackers
from training.step import NotFiniteError, train_step
from training.task import TrainTask
from training.telemetry.telemetry import Telemetry
from training.validation import recall_per_query


class Trainer:
    """One rank's training of one round."""

    def __init__(self, task: TrainTask, place: Place, loaded: Loaded | None = None) -> None:
        """Args: loaded: what the ranks share; None: this one loads it for itself."""
        torch.set_num_threads(task.threads)
        self.task, self.place = task, place
        loaded = loaded or load(task, place.world)
        assert loaded.plan.world == place.world
        self.tables, self.check = loaded.tables, loaded.check
        self.plan = replace(loaded.plan, rank=place.rank)
        self.checkpoints = Checkpointer(task.store, task.folder, place)
        state = self.checkpoints.newest()
        self.settings, own = settings_here(task, self.plan)
        self.pace = Pace(task.schedule, self.plan.micro_steps, task.settings.accumulation, task.settings.max_steps)
        self.notes: list[str] = []
        self.recalls = np.zeros(0)
        """[V] of each validation query, as of the latest epoch."""
        if mixture := describe_mixture(self.plan):
            self._note(mixture)
        self.encoder = start_encoder(task, place, self._note)
        known = task.budget_tokens or (state.budget_tokens if state else None)
        together = task.settings.batch_size * (2 + self.plan.hard + self.plan.random)
        self.budget = known or find_budget(self.encoder, self.tables.items, place, seed=task.seed, together=together)
        self.engine = start_engine(self.encoder, self.settings, place, own=own)
        self.temperature, self.progress = Temperature(task.settings.temperature), Progress()
        self.trackers = start_trackers(task, place)
        self.telemetry = Telemetry(task.store, task.folder, active=place.rank == 0, trackers=self.trackers)
        if state is not None:
            self._resume(state)
        self.objective = Objective(self.settings, self.tables, rank=place.rank, device=place.device)
        self.feed = Feed(
            self.plan,
            self.tables,
            self.encoder,
            self.settings,
            budget_tokens=self.budget,
            device=place.device.type,
            equal_packs=self.settings.grad_cache or self.engine.zero_optimization_stage() == 3,
        )
        self._started = time.monotonic()

    def _resume(self, state: TrainingState) -> None:
        if state.world != self.place.world:
            before = f"goes on with {self.place.world} rank(s) from step {state.step}, which {state.world} saved"
            self._note(f"{before}; a step still takes {state.joined} queries")
        self.checkpoints.restore(self.engine, state)
        self.progress = Progress(state.epoch, state.index, state.step, list(state.validation), dict(state.best), state.seconds)
        if state.temperature:
            self.temperature.restore(state.temperature)
        self.telemetry.resume(state.telemetry)

    def run(self, on_epoch: Callable[[dict[str, float]], None]) -> dict[str, Any]:
        """Train to the end. Collective; returns the round's result (the same on every rank).

        Raises:
            TrainingDiverged: the loss is NaN or infinite; names the step.
            ConfigError: the GPU's memory is too small for a step.
        """
        self._started = time.monotonic()
        try:
            while (
                self.progress.epoch < self.task.schedule.epochs
                and self.progress.step < self.pace.total_steps
                and not self._stops()
            ):
                self._epoch()
                self._after_epoch()
                on_epoch({"epoch": float(self.progress.epoch), "recall": self.progress.validation[-1]})
            self.checkpoints.wait()
            self.telemetry.write_parquet()
        except torch.cuda.OutOfMemoryError as error:
            raise ConfigError(
                f"a step of {self.plan.together} queries on {self.place.world} rank(s) does not fit the GPU's memory "
                f"({self.plan.hard} mined and {self.plan.random} random negatives each); set "
                f"training.grad_cache = true, which needs the memory of {self.budget} tokens only, or lower "
                f"training.batch_size"
            ) from error
        finally:
            self.feed.close()
            self.trackers.close(failed=sys.exc_info()[0] is not None)
        return self._result()

    def end(self) -> None:
        """Let go of what the engine holds beyond this object, so that another training can follow in this process."""
        self.engine.destroy()

    def _stops(self) -> bool:
        """Whether the policy that was handed over ends the round after the epochs so far; then the result says why."""
        # without dev queries there is no recall that could stop rising
        if self.task.stopping is None or self.check is None or not self.task.schedule.stops_early:
            return False
        ruling = self.task.stopping(self.progress.validation, patience=self.settings.patience)
        if ruling.stops:
            self._note(ruling.reason)
        return ruling.stops

    def _epoch(self) -> None:
        micro_steps = self.pace.micro_steps_per_epoch
        for index in range(self.progress.index, micro_steps):
            boundary = (index + 1) % self.settings.accumulation == 0
            self._micro_step(index, boundary=boundary)
            self.progress.index = index + 1
            if boundary:
                self.progress.step += 1
                if self.progress.step >= self.pace.total_steps:
                    break
                every = self.settings.checkpoint_steps
                if every and self.progress.step % every == 0 and index + 1 < micro_steps:
                    self._checkpoint()
        self.progress.epoch += 1
        self.progress.index = 0

    def _micro_step(self, index: int, *, boundary: bool) -> None:
        started = time.monotonic()
        step = self.feed.take(self.progress.epoch, index, then=self.pace.after(self.progress.epoch, index))
        waited, rate = time.monotonic() - started, self._rate()
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
        if self.settings.learn_temperature:
            self.temperature.add_gradient(seen.log_temperature / self.settings.accumulation)
            if boundary:
                self.temperature.step(rate / self.settings.peak_learning_rate(self.task.kind) * LEARNING_RATE)
        seconds = time.monotonic() - started
        norm = self.engine.get_global_grad_norm()
        speed = self.plan.together / seconds
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
        if self.place.rank == 0:
            add_to("hardmine_queries_trained", self.plan.together)
            add_to("hardmine_optimizer_steps", int(boundary))
            post_often(
                self.task.mailbox,
                "train",
                f"step {self.progress.step + 1}/{self.pace.total_steps}  loss {seen.figures['loss']:.4f}  effective negatives "
                f"{seen.figures['effective_negatives']:.1f}  {speed:.1f} queries/s",
                done=self.progress.step + 1,
                of=self.pace.total_steps,
            )

    def _diverged(self, what: str, step: int) -> str:
        return (
            f"{what} no longer finite at step {step} of round {self.task.round}, with learning rate "
            f"{self._rate():.2e} and temperature {self.temperature.value:.4g}; lower training.learning_rate "
            f'(try a third), or set training.precision = "float32". The rounds before this one are kept'
        )

    def _rate(self) -> float:
        return learning_rate(
            self.progress.step,
            total_steps=self.pace.total_steps,
            warmup_fraction=self.settings.warmup_fraction,
            peak=self.settings.peak_learning_rate(self.task.kind),
            cycles=self.task.schedule.cycles,
        )

    def _after_epoch(self) -> None:
        figure = 0.0
        if self.check is not None:
            self.recalls = recall_per_query(
                self.engine, self.check, self.tables, VALIDATION_K, self.place, budget_tokens=self.budget
            )
            figure = float(self.recalls.mean())
            self.telemetry.event({"epoch": self.progress.epoch, "recall": figure})
        self.progress.validation.append(figure)
        superseded = self.progress.best.get("prefix")
        model = self._keep(figure) if figure >= max(self.progress.validation) else None  # of equal ones the later: it saw more
        if self.progress.epoch >= self.task.schedule.epochs or self.progress.step >= self.pace.total_steps:
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
                joined=self.plan.together,
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
        prefix = f"{self.task.folder}/model-{self.progress.epoch:03d}"
        manifest, kept = keep_model(self.engine, self.encoder, self.place, prefix)
        if manifest is None:
            raise TrainingDiverged(self._diverged("the weights are", self.progress.step))
        now = self.progress
        now.best = {"epoch": now.epoch, "step": now.step, "recall": figure, "model": manifest, "prefix": prefix}
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
            "items_loaded": len(self.tables.items),
            "random_pool": self.plan.num_items if self.plan.pool is None else len(self.plan.pool),
            "random_seed": self.plan.seed,
            "ranks": self.place.world,
            "joined_batch": self.plan.together,
            "temperature": self.temperature.value,
            "budget_tokens": self.budget,
            "notes": self.notes,
            "tracker_warnings": list(self.trackers.warnings),
            "checkpoint_seconds": dict(self.checkpoints.seconds),
        }

    def _note(self, text: str) -> None:
        """Say something that a person should still see when training is over."""
        self.notes.append(text)
        self._say(text)

    def _say(self, text: str) -> None:
        post(self.task.mailbox if self.place.rank == 0 else None, "train", text)
