"""The training loop of one round, on one rank: epochs of steps, validation, the best model kept.

What is trained, the retriever or the re-ranker, is a `training.subject.Subject`. The loop knows torch.distributed and DeepSpeed,
not Ray: `training.distributed.trainer` starts it in Ray Train workers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from cluster.errors import ConfigError, TrainingDiverged
from cluster.session.metrics import add_to
from cluster.session.progress import post, post_often
from training.engine.checkpoint import Checkpointer, TrainingState
from training.engine.engine import Place, set_learning_rate, start_engine
from training.engine.kept_model import KeptModel, keep_model
from training.engine.schedule import Pace, Progress, learning_rate
from training.rank.forward import NotFiniteError
from training.rank.start import start_trackers
from training.subject import load, make_subject
from training.task import Task
from training.telemetry.telemetry import Telemetry


class Trainer:
    """One rank's training of one round."""

    def __init__(self, task: Task, place: Place, loaded: Any = None) -> None:
        """Args: loaded: what the ranks share; None: this one loads it for itself."""
        torch.set_num_threads(task.threads)
        self.task, self.place = task, place
        self.notes: list[str] = []
        self.checkpoints = Checkpointer(task.store, task.folder, place)
        state = self.checkpoints.newest()
        self.subject = make_subject(
            task,
            place,
            load(task, place.world) if loaded is None else loaded,
            budget_tokens=state.budget_tokens if state else None,
            say=self._note,
        )
        assert self.subject.plan.world == place.world
        self.settings = self.subject.settings
        self.pace = Pace(task.schedule, self.subject.plan.micro_steps, self.settings.accumulation, self.settings.max_steps)
        self.engine = start_engine(self.subject.model, self.settings, place, own=self.subject.own)
        self.progress = Progress()
        self.trackers = start_trackers(task, place)
        self.telemetry = Telemetry(task.store, task.folder, active=place.rank == 0, trackers=self.trackers)
        if state is not None:
            self._resume(state)
        self.subject.begin(self.engine)
        self._started = time.monotonic()

    def _resume(self, state: TrainingState) -> None:
        if state.world != self.place.world:
            before = f"goes on with {self.place.world} rank(s) from step {state.step}, which {state.world} saved"
            self._note(f"{before}; a step still takes {state.joined} queries")
        self.checkpoints.restore(self.engine, state)
        self.progress = Progress(state.epoch, state.index, state.step, list(state.validation), dict(state.best), state.seconds)
        if state.subject:
            self.subject.restore(state.subject)
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
                on_epoch({"epoch": float(self.progress.epoch), self.subject.measure: self.progress.validation[-1]})
            self.checkpoints.wait()
            self.telemetry.write_parquet()
        except torch.cuda.OutOfMemoryError as error:
            raise ConfigError(self.subject.on_full_memory()) from error
        finally:
            self.subject.close()
            self.trackers.close(failed=sys.exc_info()[0] is not None)
        return self._result()

    def end(self) -> None:
        """Let go of what the engine holds beyond this object, so that another training can follow in this process."""
        self.engine.destroy()

    def _stops(self) -> bool:
        """Whether the policy that was handed over ends the round after the epochs so far; then the result says why."""
        # without dev queries there is no figure that could stop rising
        if self.task.stopping is None or not self.subject.validates or not self.task.schedule.stops_early:
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
        started, rate, progress = time.monotonic(), self._rate(), self.progress
        set_learning_rate(self.engine, rate)
        then = self.pace.after(progress.epoch, index)
        try:
            figures = self.subject.micro_step(progress.epoch, index, then=then, boundary=boundary, rate=rate)
        except NotFiniteError as error:
            raise TrainingDiverged(self._diverged(f"the loss is {error},", progress.step + 1)) from None
        self.engine.step()
        seconds = time.monotonic() - started
        norm = self.engine.get_global_grad_norm()
        speed = self.subject.plan.together / seconds
        self.telemetry.add(
            {
                "round": self.task.round,
                "epoch": progress.epoch,
                "step": progress.step + 1,
                **figures,
                "learning_rate": rate,
                "gradient_norm": float(norm) if norm is not None else None,
                "queries_per_second": speed,
                "tokens_per_second": figures["tokens"] * self.place.world / seconds,
                "seconds": seconds,
            }
        )
        if self.place.rank == 0:
            add_to("hardmine_queries_trained", self.subject.plan.together)
            add_to("hardmine_optimizer_steps", int(boundary))
            post_often(
                self.task.mailbox,
                "train",
                f"step {progress.step + 1}/{self.pace.total_steps}  loss {figures['loss']:.4f}  "
                f"{self.subject.progress(figures)}  {speed:.1f} queries/s",
                done=progress.step + 1,
                of=self.pace.total_steps,
            )

    def _diverged(self, what: str, step: int) -> str:
        return f"{what} no longer finite at step {step} {self.subject.on_divergence(self._rate())}"

    def _rate(self) -> float:
        return learning_rate(
            self.progress.step,
            total_steps=self.pace.total_steps,
            warmup_fraction=self.settings.warmup_fraction,
            peak=self.subject.peak_rate,
            cycles=self.task.schedule.cycles,
        )

    def _after_epoch(self) -> None:
        figure = 0.0
        if self.subject.validates:
            figure = self.subject.validate()
            self.telemetry.event({"epoch": self.progress.epoch, self.subject.measure: figure})
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
                joined=self.subject.plan.together,
                validation=list(self.progress.validation),
                best=dict(self.progress.best),
                telemetry=self.telemetry.lines,
                seconds=self._seconds(),
                subject=self.subject.state(),
                budget_tokens=self.subject.budget,
            ),
            superseded=superseded,
            model=model,
        )

    def _keep(self, figure: float) -> KeptModel | None:
        """Note the model as it is now as the best; returns it, on rank 0, still to be uploaded."""
        prefix = f"{self.task.folder}/model-{self.progress.epoch:03d}"
        manifest, kept = keep_model(self.engine, self.subject.model, self.place, prefix)
        if manifest is None:
            raise TrainingDiverged(self._diverged("the weights are", self.progress.step))
        now = self.progress
        now.best = {"epoch": now.epoch, "step": now.step, self.subject.measure: figure, "model": manifest, "prefix": prefix}
        return kept

    def _seconds(self) -> float:
        return self.progress.seconds + time.monotonic() - self._started

    def _result(self) -> dict[str, Any]:
        plan = self.subject.plan
        return {
            "steps": self.progress.step,
            "epochs": self.progress.epoch,
            "validation": self.progress.validation,
            "best": self.progress.best,
            "train_loss": self.telemetry.mean_loss(),
            "seconds": self._seconds(),
            "examples": len(plan.examples),
            "random_pool": plan.num_items if plan.pool is None else len(plan.pool),
            "random_seed": plan.seed,
            "ranks": self.place.world,
            "joined_batch": plan.together,
            "budget_tokens": self.subject.budget,
            **self.subject.figures(),
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
