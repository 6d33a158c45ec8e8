"""The training loop of one round, on one rank: epochs of steps, validation by recall, the best model kept.

The loop knows torch.distributed and DeepSpeed, not Ray: `training.trainer` starts it in Ray Train workers.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from cluster.errors import ConfigError, TrainingDiverged
from cluster.folders import fetch_folder, upload_folder
from cluster.progress import post
from training.batches import BatchPlan, hash_rows
from training.checkpoint import TrainingState, forget_state, load_state, restore_engine, save_state
from training.encoders.load import load_encoder
from training.engine import Place, full_state, set_learning_rate, start_engine
from training.gather import mean_over_ranks
from training.schedule import learning_rate, should_stop
from training.step import Tables, step_loss
from training.task import TrainTask, load_tables
from training.telemetry import Telemetry
from training.validation import ValidationSet, choose_validation, recall


@dataclass
class Progress:
    """What changes while a round trains."""

    epoch: int = 0
    step: int = 0
    validation: list[float] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    """Of earlier attempts, up to the state that this one goes on from."""


class Trainer:
    """One rank's training of one round."""

    def __init__(self, task: TrainTask, place: Place) -> None:
        torch.set_num_threads(task.threads)
        self.task, self.place = task, place
        self.tables: Tables
        self.tables, examples, dev, near = load_tables(task)
        random = task.settings.random_negatives(mined=bool(task.negatives))
        self.plan = BatchPlan(examples, len(self.tables.items), task.settings.batch_size,
                              task.settings.hard_negatives if task.negatives else 0, random,
                              task.seed * 1009 + task.round, place.rank, place.world)
        if self.plan.micro_steps < task.settings.accumulation:
            raise ConfigError(f"an epoch has {self.plan.micro_steps} micro-step(s) of {task.settings.batch_size} "
                              f"queries on each of {place.world} rank(s), fewer than training.accumulation = "
                              f"{task.settings.accumulation}; lower training.accumulation or training.batch_size")
        self.check: ValidationSet | None = choose_validation(dev, near, self.tables.labels, task.settings, task.seed)
        self.source = fetch_folder(task.store, task.model, task.model_prefix)
        encoder = load_encoder(self.source).to(place.device)
        encoder.train()
        self.engine = start_engine(encoder, task.settings, place)
        self.encoder = encoder
        self.progress = Progress()
        self._started = time.monotonic()
        self.telemetry = Telemetry(task.store, task.folder, active=place.rank == 0)
        self._resume()

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        return max(1, self.plan.micro_steps // self.task.settings.accumulation)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole round, if it is not stopped early."""
        planned = self.steps_per_epoch * self.task.epochs
        return min(planned, self.task.steps or planned, self.task.cycles * (self.task.settings.max_steps or planned))

    def _resume(self) -> None:
        state = load_state(self.task.store, self.task.folder)
        if state is None:
            return
        if state.world != self.place.world:
            self._say(f"a checkpoint of {state.world} rank(s) cannot go on with {self.place.world}: training starts "
                      f"anew")
            forget_state(self.task.store, self.task.folder, self.place)  # the models it names will be replaced
            return
        restore_engine(self.engine, self.task.store, state)
        self.progress = Progress(state.epoch, state.step, list(state.validation), dict(state.best),
                                 state.seconds)
        self.telemetry.resume(state.telemetry)

    def run(self, on_epoch: Callable[[dict[str, float]], None]) -> dict[str, Any]:
        """Train to the end. Collective; returns the round's result (the same on every rank).

        Raises:
            TrainingDiverged: the loss is NaN or infinite; names the step.
        """
        self._started = time.monotonic()
        while self.progress.epoch < self.task.epochs and self.progress.step < self.total_steps:
            # without dev queries there is no recall that could stop rising; and a cycle that ends low is no reason to
            # leave out the next one, which starts with a high learning rate again
            if self.check is not None and self.task.cycles == 1 and should_stop(
                    self.progress.validation, self.task.settings.patience):
                break
            self._epoch()
            self._after_epoch()
            on_epoch({"epoch": float(self.progress.epoch), "recall": self.progress.validation[-1]})
        self.telemetry.flush()
        return self._result(self._seconds())

    def _epoch(self) -> None:
        accumulation = self.task.settings.accumulation
        for index in range(self.steps_per_epoch * accumulation):
            self._micro_step(index)
            if (index + 1) % accumulation == 0:
                self.progress.step += 1
                if self.progress.step >= self.total_steps:
                    break
        self.progress.epoch += 1

    def _micro_step(self, index: int) -> None:
        task, started = self.task, time.monotonic()
        batch = self.plan.batch(self.progress.epoch, index)
        # dropout depends on where we are, not on what ran before: a resumed run repeats it
        where = np.array([(self.progress.epoch * 1_000_003 + index) * 4096 + self.place.rank])
        torch.manual_seed(int(hash_rows(task.seed + task.round, where)[0] >> np.uint64(2)))
        rate = self._rate()
        set_learning_rate(self.engine, rate)
        loss, figures = step_loss(self.engine, batch, self.tables, task.settings, self.place,
                                  budget_tokens=task.budget_tokens)
        figures = self._over_ranks({"loss": float(loss.detach())} | figures)
        if not np.isfinite(figures["loss"]):
            raise TrainingDiverged(self._diverged(f"the loss is {figures['loss']},", self.progress.step + 1))
        self.engine.backward(loss)
        self.engine.step()
        norm = self.engine.get_global_grad_norm()
        seconds = time.monotonic() - started
        self.telemetry.add({
            "round": task.round, "epoch": self.progress.epoch, "step": self.progress.step + 1, **figures,
            "learning_rate": rate, "temperature": task.settings.temperature,
            "gradient_norm": float(norm) if norm is not None else None,
            "items": len(batch.item_rows), "queries_per_second": self.plan.batch_size * self.place.world / seconds,
        })
        post(task.mailbox if self.place.rank == 0 else None, "train",
             f"step {self.progress.step + 1}/{self.total_steps}  loss {figures['loss']:.4f}  "
             f"effective negatives {figures['effective_negatives']:.1f}  "
             f"{self.plan.batch_size * self.place.world / seconds:.1f} queries/s")

    def _diverged(self, what: str, step: int) -> str:
        return (f"{what} no longer finite at step {step} of round {self.task.round}, with learning rate "
                f"{self._rate():.2e} and temperature {self.task.settings.temperature}; lower training.learning_rate "
                f"(try a third), or set training.precision = \"float32\". The rounds before this one are kept")

    def _rate(self) -> float:
        settings = self.task.settings
        total = max(1, self.total_steps // self.task.cycles)  # each cycle is what one round of its own would be
        warmup = min(int(total * settings.warmup_fraction), total - 1)
        # step + 1: the first step of a warm-up is not lost on a learning rate of zero
        return learning_rate(self.progress.step % total + (warmup > 0), total_steps=total + 1, warmup_steps=warmup,
                             peak=settings.peak_learning_rate(self.task.kind))

    def _over_ranks(self, figures: dict[str, float]) -> dict[str, float]:
        # one small all-reduce: the mean over ranks, each of which saw as many queries
        mean = mean_over_ranks(torch.tensor(list(figures.values()), dtype=torch.float64, device=self.place.device))
        return dict(zip(figures, mean.tolist(), strict=True))

    def _after_epoch(self) -> None:
        figure = (recall(self.engine, self.check, self.tables, self.task.settings.validation_k, self.place,
                         budget_tokens=self.task.budget_tokens) if self.check is not None else 0.0)
        self.progress.validation.append(figure)
        superseded = self.progress.best.get("prefix")
        if figure >= max(self.progress.validation):  # of equal ones the later: it saw more
            self._keep(figure)
        self.telemetry.flush()
        last = self.progress.epoch >= self.task.epochs or self.progress.step >= self.total_steps
        if last:
            return
        save_state(self.engine, self.task.store, self.task.folder, TrainingState(
            self.progress.epoch, self.progress.step, self.place.world, list(self.progress.validation),
            dict(self.progress.best), self.telemetry.lines, self._seconds()), self.place)
        if self.place.rank == 0 and superseded not in {None, self.progress.best["prefix"]}:
            self.task.store.delete(superseded)  # only now: until here the saved state named it

    def _keep(self, figure: float) -> None:
        state = full_state(self.engine, self.place)
        prefix = f"{self.task.folder}/model-{self.progress.epoch:03d}"
        manifest: list[Any] = [None]
        # the last step's loss was computed before its update: what is kept is looked at itself
        if self.place.rank == 0 and all(bool(value.isfinite().all()) for value in state.values()):
            with tempfile.TemporaryDirectory(prefix="hardmine-model-") as local:
                self.encoder.save(Path(local), state)
                manifest = [upload_folder(Path(local), self.task.store, prefix)]
        if self.place.world > 1:
            dist.broadcast_object_list(manifest, src=0)
        if manifest[0] is None:
            raise TrainingDiverged(self._diverged("the weights are", self.progress.step))
        self.progress.best = {"epoch": self.progress.epoch, "step": self.progress.step, "recall": figure,
                              "model": manifest[0], "prefix": prefix}

    def _seconds(self) -> float:
        return self.progress.seconds + time.monotonic() - self._started

    def _result(self, seconds: float) -> dict[str, Any]:
        return {
            "steps": self.progress.step, "epochs": self.progress.epoch, "validation": self.progress.validation,
            "best": self.progress.best, "train_loss": self.telemetry.mean_loss(), "seconds": seconds,
            "examples": len(self.plan.examples), "ranks": self.place.world,
        }

    def _say(self, text: str) -> None:
        post(self.task.mailbox if self.place.rank == 0 else None, "train", text)
