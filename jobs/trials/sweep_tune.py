"""The trials of a sweep on Ray Tune: an actor each; asynchronous successive halving stops bad ones early."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler

from cluster.errors import ClusterError, HardmineError, one_paragraph, root_cause
from cluster.session.resources import PoolSize
from jobs.trials.sweep_plan import TrialRecord
from jobs.trials.sweep_trial import Job, run_trial

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a table on standard output even when told to be silent
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard files beside our records
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the command at once
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # the first trial reports no epoch
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "600",
}


REDUCTION_FACTOR = 2.0
"""After epochs 1, 2, 4 … about one in so many trials continues (ASHA, Li 2020, arXiv 1810.05934)."""


class _Closing(tune.Callback):  # type: ignore[misc]  # Ray has no types here
    """Closes each trial as soon as Tune ends it: its models are deleted, and a later attempt finds its record."""

    def __init__(self, job: Job, on_end: Callable[[int, TrialRecord], None]) -> None:
        self._job, self._on_end = job, on_end

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune stores its callbacks to restore itself; a new attempt here makes new ones

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Tune calls this in the driver when a trial has finished, diverged or been stopped."""
        number = int(trial.config["number"])
        self._on_end(number, self._job.close(number))


def run_trials(job: Job, pool: PoolSize, *, retries: int, on_end: Callable[[int, TrialRecord], None]) -> None:
    """Run every trial of `job` to its record; those that have one are only reported to the scheduler.

    Args:
        pool: CPUs and GPUs of each trial.
        on_end: called in the driver with each trial's number and record.

    Raises:
        HardmineError: what a trial raised. ClusterError: an actor kept dying.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # errors are raised below, as one paragraph
    for attempt in range(retries + 1):
        error = _fit(job, pool, on_end)
        if error is None:
            return
        cause = root_cause(error)
        if isinstance(cause, HardmineError):  # another attempt would end the same way
            raise cause from None
        if attempt == retries:
            raise ClusterError(
                f"a trial of the sweep failed after {retries + 1} attempt(s): {one_paragraph(str(cause))[:600]}; run the same "
                f"command again: finished trials are kept. An actor that dies without a message usually ran out of memory: "
                f"lower training.batch_size, or raise cluster.cpus_per_worker so that fewer trials run at once"
            ) from error


def _fit(job: Job, pool: PoolSize, on_end: Callable[[int, TrialRecord], None]) -> Exception | None:
    """One run of Tune; returns the first error of a trial, which stopped the others."""
    filesystem, root = job.store.arrow_filesystem()
    epochs = job.settings[0].epochs
    trainable = tune.with_resources(tune.with_parameters(run_trial, job=job), {"cpu": pool.cpus, "gpu": pool.gpus})
    results = tune.Tuner(
        trainable,
        param_space={"number": tune.grid_search(list(range(len(job.settings))))},
        tune_config=tune.TuneConfig(
            # a process takes long to start; on a GPU a new one is worth it, because it frees all memory of the last trial
            reuse_actors=not job.gpu,
            # one epoch more than there are: a trial that reaches the last one ends by itself
            scheduler=AsyncHyperBandScheduler(
                time_attr="epoch",
                metric="recall",
                mode="max",
                max_t=epochs + 1,
                grace_period=1,
                reduction_factor=REDUCTION_FACTOR,
            ),
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=f"{root}/{job.folder}",
            storage_filesystem=filesystem,
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=0, fail_fast=True),
            callbacks=[_Closing(job, on_end)],
        ),
    ).fit()
    error = next(iter(results.errors), None)  # a string where Tune itself gave up on a trial
    return tune.TuneError(error) if isinstance(error, str) else error
