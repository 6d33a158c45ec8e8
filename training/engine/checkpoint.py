"""Checkpoints of a round's training, uploaded while training goes on.

    <folder>/engine/step-000120-e02/<attempt>/rank-N/…     what rank N holds of the engine's state (`engine_state`)
    <folder>/engine/step-000120-e02/<attempt>/rank-N.json  size and SHA-256 of each of them, once all are there
    <folder>/engine/step-000120-e02/state.json             written last: the training state and every rank's files

A checkpoint without state.json does not exist. Only what state.json lists is loaded, after its SHA-256 was checked; nothing is
unpickled. Any number of ranks can load it. Each save has an attempt name of its own, so that what a killed one left at the
same step is never taken for a part of the new one, nor overwritten while an old state.json still lists it.
"""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch.distributed as dist

from cluster.commits import digest
from cluster.errors import ArtifactError, ClusterError, DamagedObject, HardmineError, StorageError, one_paragraph
from cluster.storage.digests import sha256
from cluster.storage.model_folders import Manifest
from cluster.storage.records import read_record
from cluster.storage.store import Store
from training.engine.engine import Place
from training.engine.engine_state import FILE, load_state, loss_scale, save_state, set_loss_scale
from training.engine.kept_model import KeptModel
from training.engine.upload import STATE, Mark, Upload, complete, name_of

DEADLINE_S = 1500.0
"""How long rank 0 waits for the other ranks' parts; below the half hour after which collectives give up."""
LOCAL = "hardmine-engine-"


@dataclass(frozen=True)
class TrainingState:
    """Where a training run stands, between two optimizer steps."""

    epoch: int
    """Epochs finished."""
    step: int
    """Optimizer steps finished."""
    world: int
    """Ranks that saved it."""
    joined: int
    """Queries of all ranks together in a micro-step: kept, however many ranks go on."""
    validation: list[float] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    """The kept model: epoch, step, figure, and the prefix and manifest of its folder."""
    telemetry: int = 0
    """Lines of telemetry written."""
    seconds: float = 0.0
    """Spent on training so far, over all attempts."""
    index: int = 0
    """Micro-steps done of the epoch that is under way."""
    subject: dict[str, float] = field(default_factory=dict)
    """What is learned beside the weights: a temperature and its optimizer's state; empty: nothing."""
    budget_tokens: int | None = None
    """Tokens encoded at once, as a probe found; None: no probe was needed."""
    loss_scale: dict[str, float] = field(default_factory=dict)
    """Dynamic loss scale of float16; set by `Checkpointer.save`."""
    files: Manifest = field(default_factory=dict)
    """What `Checkpointer.save` stored, all ranks together."""

    @property
    def mark(self) -> Mark:
        """(epoch, step): the place of its checkpoint among the others."""
        return self.epoch, self.step


def _root(folder: str) -> str:
    return f"{folder}/engine".strip("/")


def newest_state(store: Store, folder: str) -> TrainingState | None:
    """The complete checkpoint of a round with the highest (epoch, step); None if there is none.

    Raises:
        ArtifactError: its state.json is damaged, or of another version of hardmine.
    """
    root = _root(folder)
    marks = complete(store.list(root), root)
    if not marks:
        return None
    path = f"{root}/{name_of(marks[-1])}/{STATE}"
    try:
        return TrainingState(**read_record(store, path))
    except TypeError as error:
        raise ArtifactError(
            f"{store.url(path)} is not a training state as this version writes it ({error}); "
            f"delete the folder that it is in and run again"
        ) from error


class Checkpointer:
    """The checkpoints of one round on one rank. Collective where it says so: every rank must make the same call."""

    def __init__(self, store: Store, folder: str, place: Place) -> None:
        """Args: store, folder: where; the checkpoints go below <folder>/engine. Only the newest complete one is kept."""
        self.store, self.place, self._folder = store, place, folder
        self.root = _root(folder)
        self.seconds: dict[str, float] = {"save": 0.0, "upload": 0.0}
        """Of the latest: for how long `save` stopped training, and from then until the upload had ended."""
        self._upload: Upload | None = None

    def newest(self) -> TrainingState | None:
        """See `newest_state`."""
        return newest_state(self.store, self._folder)

    def save(self, engine: Any, state: TrainingState, *, superseded: Sequence[str] = (), model: KeptModel | None = None) -> None:
        """Save the engine of every rank as it is now; collective.

        Returns when the files are on local disk; they are uploaded in the background. Waits for the upload
        before it: at most one is under way. `superseded`: prefixes, such as folders of models that are no longer the
        best, that are deleted once this checkpoint is complete, unless it names them. `model`: uploaded
        with it (rank 0).

        Raises:
            StorageError: the checkpoint before could not be stored. ClusterError: this one cannot be written to local disk.
        """
        started = time.monotonic()
        self.wait()
        attempt = self._gather(uuid.uuid4().hex[:8])[0]
        local = tempfile.TemporaryDirectory(prefix=LOCAL, ignore_cleanup_errors=True)
        try:
            save_state(engine, self.place, Path(local.name) / FILE)
        except OSError as error:
            local.cleanup()
            raise ClusterError(
                f"rank {self.place.rank} could not write the checkpoint of step {state.step} to {local.name} "
                f"({type(error).__name__}: {one_paragraph(str(error))}); check the room there (TMPDIR chooses another "
                f"disk), then run the same command again: it goes on from the checkpoint before"
            ) from error
        # asdict copies: the loop goes on to append to the lists of `state`
        self._upload = Upload(
            self.store,
            self.root,
            attempt,
            local,
            self.place,
            record=asdict(state) | {"loss_scale": loss_scale(engine)},
            superseded=superseded,
            deadline_s=DEADLINE_S,
            model=model,
        )
        self._upload.start()
        self.seconds["save"] = time.monotonic() - started

    def wait(self) -> None:
        """Return when what was saved is complete in storage; collective.

        Raises:
            StorageError: a rank could not store its part, or rank 0 not complete the checkpoint; on all ranks.
        """
        if self._upload is None:  # on all ranks or on none: save is collective
            return
        upload, self._upload = self._upload, None
        upload.stored.wait()
        if any(self._gather(upload.failure is not None)):
            upload.cancelled.set()  # rank 0 need not wait for a part that does not come
        upload.join()
        self.seconds["upload"] = upload.seconds
        failures = [f"rank {rank}: {failure}" for rank, failure in enumerate(self._gather(upload.failure)) if failure]
        if failures:
            raise StorageError(
                f"the checkpoint of step {upload.mark[1]} (epoch {upload.mark[0]}) could not be stored below "
                f"{self.store.url(self.root)}. {'; '.join(failures)}. Once the storage answers, run the same command "
                f"again: it goes on from the newest complete checkpoint"
            )

    def restore(self, engine: Any, state: TrainingState) -> None:
        """Load weights and optimizer into `engine`; collective, on any number of ranks.

        Each rank fetches and checks the files of all that saved, and nothing is loaded before all have.

        Raises:
            ArtifactError: a file is missing or does not have the SHA-256 of state.json; on all ranks.
            ClusterError: the storage failed, or the ranks were given different checkpoints.
        """
        if len(set(self._gather((state.epoch, state.step, digest(state.files))))) > 1:
            raise ClusterError(
                f"the ranks found different newest checkpoints below {self.store.url(self.root)}: an "
                f"earlier attempt still writes there; run the same command again"
            )
        with tempfile.TemporaryDirectory(prefix=LOCAL, ignore_cleanup_errors=True) as local:
            problem: HardmineError | None = None
            try:
                files = self._fetch(state, Path(local))
            except HardmineError as error:
                problem = error
            except OSError as error:
                problem = ClusterError(
                    f"cannot put the checkpoint of step {state.step} into {local} ({error}); check the "
                    f"room there (TMPDIR chooses another disk), then run the same command again"
                )
            self._raise_together(problem)
            try:
                load_state(engine, self.place, files)
            except ArtifactError as error:
                problem = self._damaged(state, f"{self.store.url(self.root)}: step {state.step}: {error}")
            self._raise_together(problem)
        set_loss_scale(engine, state.loss_scale)

    def forget(self) -> None:
        """Delete all checkpoints of this folder, once no rank reads or writes them any more; collective."""
        if self._upload is not None:
            self._upload.cancelled.set()
            self._upload.join()
            self._upload = None
        self._gather(None)  # a barrier: no rank still reads or writes
        problem: HardmineError | None = None
        if self.place.rank == 0:
            try:
                for mark in complete(self.store.list(self.root), self.root):
                    # first: killed in between, no state.json may be left of a checkpoint without files
                    self.store.delete(f"{self.root}/{name_of(mark)}/{STATE}")
                self.store.delete(self.root)
            except HardmineError as error:
                problem = error
        self._raise_together(problem)

    def _fetch(self, state: TrainingState, local: Path) -> list[Path]:
        """The checkpoint's files, on local disk."""
        files = []
        for number, (path, info) in enumerate(state.files.items()):
            try:
                data = self.store.read_bytes(path)
            except ArtifactError as error:
                raise self._damaged(state, f"{self.store.url(path)} is missing") from error
            if sha256(data) != info["sha256"]:
                raise self._damaged(
                    state, f"{self.store.url(path)} does not have the SHA-256 that was recorded when it was saved"
                )
            files.append(local / f"{number}-{FILE}")
            files[-1].write_bytes(data)
        return files

    def _damaged(self, state: TrainingState, what: str) -> DamagedObject:
        """`what` is wrong with the checkpoint of `state`; what is set aside for it is its state.json."""
        older = [mark for mark in complete(self.store.list(self.root), self.root) if mark < state.mark]
        then = (
            f"training goes on from the checkpoint before it, that of step {older[-1][1]} (epoch {older[-1][0]})"
            if older
            else "the round's training starts anew"
        )
        url = self.store.url(f"{self.root}/{name_of(state.mark)}/{STATE}")
        return DamagedObject.at(url, f"{what}. `hardmine run` leaves this checkpoint out: {then}")

    def _gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank; a barrier. Collective."""
        if self.place.world == 1:
            return [value]
        values: list[Any] = [None] * self.place.world
        dist.all_gather_object(values, value)
        return values

    def _raise_together(self, problem: HardmineError | None) -> None:
        """Raise the first rank's problem on all of them; a barrier. Collective."""
        for found in self._gather(problem):
            if found is not None:
                raise found
