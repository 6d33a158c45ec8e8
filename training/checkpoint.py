"""Training state in storage: DeepSpeed's own files of every rank, and one small object that says they are complete.

    <folder>/engine/step-000120/rank-0/…   what engine.save_checkpoint wrote there
    <folder>/engine/state.json             written last: step, epoch, world size, SHA-256 of every file

Only what state.json lists is ever loaded, after its SHA-256 was checked: DeepSpeed's files are pickles.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch.distributed as dist

from cluster.errors import ArtifactError
from cluster.folders import Manifest, sha256, upload_folder
from cluster.storage import Store
from training.engine import Place

TAG = "engine"


@dataclass(frozen=True)
class TrainingState:
    """Where a training run stands, between two epochs."""

    epoch: int
    """Epochs finished."""
    step: int
    """Optimizer steps finished."""
    world: int
    validation: list[float] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    """The kept model: epoch, step, recall, and the manifest of its folder."""
    telemetry: int = 0
    """Lines of telemetry written."""
    seconds: float = 0.0
    """Spent on training so far, over all attempts."""
    files: Manifest = field(default_factory=dict)


def save_state(engine: Any, store: Store, folder: str, state: TrainingState, place: Place) -> None:
    """Save the engine of every rank, then state.json. Collective."""
    prefix = f"{folder}/engine/step-{state.step:06d}"
    with tempfile.TemporaryDirectory() as local:
        engine.save_checkpoint(local, tag=TAG)
        mine = upload_folder(Path(local), store, f"{prefix}/rank-{place.rank}")
    manifests: list[Any] = [None] * place.world
    dist.all_gather_object(manifests, mine)
    if place.rank == 0:
        before = load_state(store, folder)
        files = {path: info for manifest in manifests for path, info in manifest.items()}
        store.write_json(f"{folder}/engine/state.json", asdict(state) | {"files": files})
        if before is not None and before.step != state.step:
            store.delete(f"{folder}/engine/step-{before.step:06d}")
    dist.barrier()


def load_state(store: Store, folder: str) -> TrainingState | None:
    """What state.json says; None before the first save."""
    path = f"{folder}/engine/state.json"
    return TrainingState(**store.read_json(path)) if store.exists(path) else None


def forget_state(store: Store, folder: str, place: Place) -> None:
    """Delete what was saved, once no rank reads it any more. Collective."""
    dist.barrier()
    if place.rank == 0:
        store.delete(f"{folder}/engine")


def restore_engine(engine: Any, store: Store, state: TrainingState) -> None:
    """Load weights, optimizer and schedule of every rank into `engine`.

    Raises:
        ArtifactError: a file is missing or does not have the SHA-256 of state.json.
    """
    local = Path(tempfile.mkdtemp(prefix="hardmine-engine-"))
    try:
        for path, info in state.files.items():
            data = store.read_bytes(path)
            if sha256(data) != info["sha256"]:
                raise ArtifactError(f"{store.url(path)} does not have the SHA-256 that was recorded when it was saved; "
                                    f"it is a pickle and is not loaded. Delete the folder `engine` beside it and run "
                                    f"again: the round's training starts anew")
            target = local / path.split("/rank-", 1)[1].split("/", 1)[1]  # the ranks' files have distinct names
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        found, _ = engine.load_checkpoint(str(local), tag=TAG)
        if found is None:  # DeepSpeed only warns
            raise ArtifactError(f"DeepSpeed finds no checkpoint in what step {state.step} saved below {store.root}; "
                                f"delete the folder `engine` and run again: the round's training starts anew")
    finally:
        shutil.rmtree(local, ignore_errors=True)
