"""The best model so far: a folder on local disk until it is uploaded with the next checkpoint."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist

from cluster.storage.model_folders import Manifest, describe_folder, upload_folder
from cluster.storage.store import Store
from training.encoders.base import Encoder
from training.engine.engine import Place, full_state


@dataclass(frozen=True)
class KeptModel:
    """A model on local disk that is to be kept at `prefix`."""

    local: tempfile.TemporaryDirectory[str]
    prefix: str

    def store(self, store: Store) -> None:
        """Upload it, and remove the local files also where that fails."""
        try:
            upload_folder(Path(self.local.name), store, self.prefix)
        finally:
            self.local.cleanup()


def keep_model(engine: Any, encoder: Encoder, place: Place, prefix: str) -> tuple[Manifest | None, KeptModel | None]:
    """Write the weights as they are now to rank 0's disk. Collective.

    Returns:
        (manifest of the folder, None where a weight is not finite: equal on all ranks; on rank 0 the model to upload).
    """
    state = full_state(engine, place)
    manifest: list[Manifest | None] = [None]
    kept = None
    # the last step's loss was computed before its update: what is kept is looked at itself
    if place.rank == 0 and all(bool(value.isfinite().all()) for value in state.values()):
        kept = KeptModel(tempfile.TemporaryDirectory(prefix="hardmine-model-", ignore_cleanup_errors=True), prefix)
        encoder.save(Path(kept.local.name), state)
        manifest = [describe_folder(Path(kept.local.name), prefix)]
    if place.world > 1:
        dist.broadcast_object_list(manifest, src=0)
    return manifest[0], kept
