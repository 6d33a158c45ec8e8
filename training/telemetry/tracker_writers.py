"""The three trackers' own ways to write figures; each lives in the thread that `training.telemetry.trackers` gives it.

After a resume no step is there twice: TensorBoard is told from which step on earlier figures are void, MLflow is asked for
the last step it has, and Weights & Biases takes only steps beyond its last one.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from cluster.storage.store import Store

INIT_S = 20.0
"""How long Weights & Biases may take to answer at first; a process that ends sooner waits for it that long."""
FINISH_S = 9.0
"""How long Weights & Biases may upload at the end; its own exit hook keeps to it as well."""
PROJECT = "hardmine"
"""Experiment of MLflow and project of Weights & Biases where the environment names none."""
EVENT_FILE_BYTES = 16 * 2**20
"""Of TensorBoard: a larger file is closed, uploaded for the last time, and followed by another."""


@dataclass(frozen=True)
class Record:
    """Figures at one optimizer step, named `group/figure`."""

    step: int
    time_s: float
    """Seconds since 1970."""
    values: Mapping[str, float]


@dataclass(frozen=True)
class About:
    """What a tracker is told of the round."""

    run: str
    round: int
    label: str
    """Of the round's model: round-02-random."""
    id: str
    """Names this round of this run and no other; the same after a resume."""
    store: Store
    folder: str
    """Of the round, relative to the store."""
    config: Mapping[str, Any]
    """Sent as it is: it holds no secrets."""

    @property
    def title(self) -> str:
        """e.g. "catalogue round-02-random"."""
        return f"{self.run} {self.label}"


class Writer(Protocol):
    """One tracker. It lives in its thread alone, from being made to `close`, and may raise and block as it likes."""

    def write(self, records: Sequence[Record]) -> None:
        """Take figures; steps ascend."""

    def flush(self) -> None:
        """Bring everything so far to where it can be seen."""

    def close(self, *, failed: bool) -> None:
        """Flush and end."""


def identified(about: About) -> About:
    """`about` with the id of its folder: made up by the first attempt and kept there, for a resume to find.

    It is not derived from the address: a run that was deleted and started again is another one.
    """
    path = f"{about.folder}/trackers.json"
    about.store.create(path, json.dumps({"id": uuid.uuid4().hex}).encode())
    return replace(about, id=str(about.store.read_json(path)["id"]))


def tensorboard_folder(about: About) -> str:
    """Where the event files of a model go, relative to the store."""
    return f"tensorboard/{about.label}/{about.folder.rpartition('/')[2][:8]}"


class TensorBoardWriter:
    """Event files in a local folder, uploaded to `tensorboard/<label>/<key>/` at each flush: object stores cannot append.

    So TensorBoard, started on the run's `tensorboard/`, lists the models by their names, and a model that was trained again
    with other settings (another key) beside the first one.

    They are numbered through all attempts, because readers take them in the order of their names.
    """

    def __init__(self, about: About, *, file_bytes: int = EVENT_FILE_BYTES) -> None:
        """Args: file_bytes: a larger event file is followed by another."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from torch.utils.tensorboard import FileWriter, summary

        self._event, self._session, self._summary, self._writer = Event, SessionLog, Summary, FileWriter
        self._store, self._prefix, self._file_bytes = about.store, tensorboard_folder(about), file_bytes
        self._local = Path(tempfile.mkdtemp(prefix="hardmine-tensorboard-"))
        self._number = max((int(path.rpartition(".")[2]) for path in self._store.list(self._prefix)), default=0)
        self._begun = False
        self._open()
        text: Any = summary.text
        self._file.add_summary(text("config", f"```\n{json.dumps(about.config, indent=1, default=str)}\n```"), 0)

    def write(self, records: Sequence[Record]) -> None:
        """One event per record."""
        for record in records:
            if not self._begun and "train/loss" in record.values:
                # what an earlier attempt wrote from this step on is void: readers drop it
                void = self._event(session_log=self._session(status=self._session.START))
                self._file.add_event(void, record.step, record.time_s)
                self._begun = True
            values = [self._summary.Value(tag=tag, simple_value=value) for tag, value in record.values.items()]
            self._file.add_summary(self._summary(value=values), record.step, record.time_s)

    def flush(self) -> None:
        """Upload the newest file as it is; those before it are complete."""
        self._file.flush()
        if self._upload() > self._file_bytes:
            self._file.close()
            self._open()

    def close(self, *, failed: bool) -> None:
        """Upload the rest and delete the local folder."""
        self._file.close()
        self._upload()
        shutil.rmtree(self._local, ignore_errors=True)

    def _open(self) -> None:
        self._number += 1
        self._file = self._writer(str(self._local / str(self._number)))

    def _upload(self) -> int:
        (path,) = (self._local / str(self._number)).iterdir()
        data = path.read_bytes()
        self._store.write_bytes(f"{self._prefix}/events.out.tfevents.{self._number:06d}", data)
        return len(data)


class MlflowWriter:
    """A run of MLflow per round, at the tracking server that the environment names."""

    def __init__(self, about: About) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._metric, self._client = Metric, MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        experiment = self._client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(name)
        found = self._client.search_runs([experiment_id], filter_string=f"tags.`hardmine.id` = '{about.id}'", max_results=1)
        self._last: dict[str, int] = {}
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            self._last = self._last_steps(found[0].data.metrics)
            return
        tags = {"hardmine.id": about.id, "hardmine.run": about.run, "hardmine.round": str(about.round)}
        self._run = self._client.create_run(experiment_id, tags=tags, run_name=about.title).info.run_id
        params = [Param(key, value[:500]) for key, value in flat(about.config)]
        for start in range(0, len(params), 100):  # the most that one request may hold
            self._client.log_batch(self._run, params=params[start : start + 100])

    def write(self, records: Sequence[Record]) -> None:
        """As few requests as the server's limit of 1,000 metrics allows."""
        metrics = [
            self._metric(tag, value, int(record.time_s * 1000), record.step)
            for record in records
            for tag, value in record.values.items()
            if record.step > self._last.get(tag.partition("/")[0], -1)
        ]
        for start in range(0, len(metrics), 1000):
            self._client.log_batch(self._run, metrics=metrics[start : start + 1000])

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self, *, failed: bool) -> None:
        """Say how the round ended."""
        self._client.set_terminated(self._run, status="FAILED" if failed else "FINISHED")

    def _last_steps(self, names: Mapping[str, float]) -> dict[str, int]:
        """Last step of each event, and of the figures of training; one figure stands for all of its group."""
        first = {name.partition("/")[0]: name for name in sorted(names, reverse=True)}
        return {
            group: max(metric.step for metric in self._client.get_metric_history(self._run, name))
            for group, name in first.items()
        }


class WandbWriter:
    """A run of Weights & Biases per round, in one group per hardmine run.

    Nothing but the figures, the settings and the host's name is sent: no code, no command line, no console, no packages, no
    use of the machine. What an offline run left is uploaded to `<folder>/wandb/`, for `wandb sync`, unless WANDB_DIR keeps
    it on this machine.
    """

    def __init__(self, about: About) -> None:
        import wandb

        self._about = about
        self._local = "" if os.environ.get("WANDB_DIR") else tempfile.mkdtemp(prefix="hardmine-wandb-")
        wanted = {
            "silent": True,
            "console": "off",
            "disable_git": True,
            "disable_code": True,
            "save_code": False,
            "x_disable_meta": True,
            "x_save_requirements": False,
            "x_disable_stats": True,
            "x_disable_machine_info": True,
            "init_timeout": INIT_S,
            "login_timeout": 10.0,
            "finish_timeout": FINISH_S,
        }
        # a setting that this version of wandb does not know would be an error
        known = {name: value for name, value in wanted.items() if name in wandb.Settings.model_fields}
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=about.title,
            group=about.run,
            id=about.id,
            resume="allow",
            reinit="create_new",
            config=dict(about.config),
            dir=self._local or None,
            settings=wandb.Settings(**known),
        )

    def write(self, records: Sequence[Record]) -> None:
        """One step per record; steps that the run already has are passed over by wandb."""
        for record in records:
            self._run.log(dict(record.values), step=record.step)

    def flush(self) -> None:
        """Wandb uploads as it goes."""

    def close(self, *, failed: bool) -> None:
        """Upload the rest; keep what an offline run left."""
        import wandb

        offline = bool(self._run.offline)
        self._run.finish(exit_code=int(failed))
        if self._local:
            if offline:
                wandb.teardown()  # only then has its service written everything to the disk
                _upload(Path(self._local) / "wandb", self._about.store, f"{self._about.folder}/wandb")
            shutil.rmtree(self._local, ignore_errors=True)


WRITERS: dict[str, Callable[[About], Writer]] = {"tensorboard": TensorBoardWriter, "mlflow": MlflowWriter, "wandb": WandbWriter}


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted name, value as text) of nested settings."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)


def _upload(local: Path, store: Store, prefix: str) -> None:
    for path in sorted(local.rglob("offline-run-*/**/*")):
        if path.is_file() and not path.is_symlink():
            store.write_bytes(f"{prefix}/{path.relative_to(local).as_posix()}", path.read_bytes())
