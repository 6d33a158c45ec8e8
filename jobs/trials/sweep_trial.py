"""One trial of a sweep, in an actor of Ray Tune: the training loop on one rank, which reports recall after every epoch.

<folder>/running/<trial>/    the loop's own files, and record.json, written after every epoch; deleted when the trial ends
<folder>/trial-<trial>.json  the record of a trial that has ended: it never runs again
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.errors import TrainingDiverged
from cluster.session.session import set_threads
from cluster.storage.store import Store
from jobs.trials.sweep_plan import TrialRecord, trial_id
from training.settings import TrainingSettings
from training.task import TrainTask
from training.telemetry.telemetry import read_lines

if TYPE_CHECKING:
    from training.loop import Trainer


@dataclass(frozen=True)
class Job:
    """What the trials of a sweep have in common."""

    store: Store
    folder: str
    task: TrainTask
    settings: Sequence[TrainingSettings]
    """One per trial, by its number."""
    gpu: bool

    def work(self, number: int) -> str:
        """The folder in which a trial works."""
        return f"{self.folder}/running/{trial_id(self.settings[number])}"

    def find(self, number: int) -> TrialRecord | None:
        """The record of a trial that has ended; None: it has not."""
        return self._read(f"{self.folder}/trial-{trial_id(self.settings[number])}.json")

    def close(self, number: int) -> TrialRecord:
        """End a trial: keep its record, delete its models. The scheduler has stopped one that still runs."""
        ended = self.find(number)
        if ended is not None:
            return ended
        record = self._read(f"{self.work(number)}/record.json")
        assert record is not None, "a trial is stopped at a report, and writes its record before it reports"
        if record.state == "running":
            record = replace(record, state="stopped")
        self.store.write_json(f"{self.folder}/trial-{trial_id(self.settings[number])}.json", asdict(record))
        self.store.delete(self.work(number))
        return record

    def note(self, number: int, record: TrialRecord) -> None:
        """Store how far a trial is."""
        self.store.write_json(f"{self.work(number)}/record.json", asdict(record))

    def _read(self, path: str) -> TrialRecord | None:
        return TrialRecord(**self.store.read_json(path)) if self.store.exists(path) else None


def run_trial(config: dict[str, Any], job: Job) -> None:
    """What a Tune actor runs.

    Args:
        config: "number" of the trial.

    Raises:
        HardmineError: the loop refuses the settings. A divergence is a record, not an error.
    """
    # Tune gives the stopped trial of an actor 2 s to end before the next one; its step and a busy disk may take longer
    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "600")
    number = int(config["number"])
    ended = job.find(number)
    if ended is not None:  # reported again, so that the scheduler compares the others with it
        for epoch, recall in enumerate(ended.recalls, start=1):
            _report(number, epoch, recall)
        return
    set_threads(job.task.threads)
    _Attempt(job, number).run()


def _report(number: int, epoch: int, recall: float) -> None:
    from ray import tune

    # the scheduler never stops a trial that reports no epoch: the first one runs to its end, and all others are compared with it
    tune.report({"recall": recall} | ({"epoch": epoch} if number else {}))


class _Attempt:
    """A trial from start to end. One that was interrupted starts over, which costs a few epochs."""

    def __init__(self, job: Job, number: int) -> None:
        self._job, self._number = job, number
        self._started = time.monotonic()
        self._record = TrialRecord("running", [])

    def run(self) -> None:
        import torch

        from training.engine.engine import place_of
        from training.loop import Trainer

        job = self._job
        job.store.delete(job.work(self._number))
        task = replace(job.task, folder=job.work(self._number), settings=job.settings[self._number])
        place = place_of(job.task.settings, torch.device("cuda:0" if job.gpu else "cpu"), rank=0, world=1)
        _start_group(job)
        trainer = Trainer(task, place)
        try:
            trainer.run(lambda figures: self._after_epoch(trainer))
            self._record = replace(self._record, state="finished")
        except TrainingDiverged as error:
            self._record = replace(self._record, state="diverged", recall=None, per_query=None, reason=str(error))
        finally:  # also where the scheduler stops the trial: the report raises SystemExit
            trainer.engine.destroy()
        self._note()
        if self._record.state == "diverged":
            _report(self._number, len(self._record.recalls) + 1, 0.0)

    def _after_epoch(self, trainer: Trainer) -> None:
        # the scheduler may stop the trial at its report, and Tune does not wait for its thread: nothing may be written after that
        trainer.checkpoints.wait()
        progress = trainer.progress
        trainer.telemetry.flush()
        steps = [line for line in read_lines(trainer.task.store, trainer.task.folder) if "event" not in line]
        record = replace(
            self._record,
            recalls=list(progress.validation),
            recall=max(progress.validation),
            effective_negatives=_late_mean(steps, "effective_negatives"),
            hardest_weight=_late_mean(steps, "hardest_weight"),
        )
        from training.retriever.subject import Retriever

        subject = trainer.subject
        if progress.best["epoch"] == progress.epoch and isinstance(subject, Retriever):
            record = replace(record, per_query=subject.recalls.tolist())
        self._record = record
        self._note()
        _report(self._number, progress.epoch, progress.validation[-1])

    def _note(self) -> None:
        self._record = replace(self._record, seconds=time.monotonic() - self._started)
        self._job.note(self._number, self._record)


def _start_group(job: Job) -> None:
    """A process group of one rank, once per actor: the next trial may run in the same one."""
    import torch.distributed as dist

    os.environ["LOCAL_RANK"] = "0"  # as Ray Train sets it; DeepSpeed reads it
    if not dist.is_initialized():
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group("nccl" if job.gpu else "gloo", store=store, rank=0, world_size=1)


def _late_mean(steps: Sequence[dict[str, Any]], name: str) -> float:
    """Mean of a figure over the last quarter of the steps so far."""
    return float(np.mean([step[name] for step in steps[-max(1, len(steps) // 4) :]]))
