"""The re-ranker's model as a folder of the run, as it comes or with a new head."""

from __future__ import annotations

import tempfile
from pathlib import Path

from cluster.commits import Commit, Outcome
from cluster.storage.model_folders import folder_digest, upload_folder
from cluster.storage.store import Store
from jobs.config.config import Config
from jobs.record.stages import Stage
from jobs.stages.context import Context, in_worker
from jobs.stages.ingest.fingerprints import folder_fingerprint


def prepare_reranker(context: Context, stage: Stage) -> Commit:
    """The model that re-ranks off the shelf, and that training starts from.

    Raises:
        ConfigError: the model is missing, damaged or of another kind.
    """
    settings = context.config.reranker
    assert settings is not None
    inputs = {
        "model": folder_fingerprint(settings.model),
        "max_length": settings.max_length,
        "seed": context.config.rounds.seed,  # of a new head
    }
    return context.commit(
        stage, inputs=inputs, work=lambda folder: in_worker(make_reranker, context, context.config, context.store, folder)
    )


def make_reranker(config: Config, store: Store, folder: str) -> Outcome:
    """The model below `folder`, with the digest of its content, and whether its head is new."""
    from training.encoders.cross_encoder import copy_cross_encoder
    from training.encoders.prepare.prepare import model_folder
    from training.encoders.prepare.trial import reading_model

    settings = config.reranker
    assert settings is not None
    with tempfile.TemporaryDirectory(prefix="hardmine-reranker-") as local:
        target = Path(local)
        with reading_model(settings.model), model_folder(settings.model, config.storage) as source:
            copy_cross_encoder(source, settings.max_length, target)
        files = upload_folder(target, store, f"{folder}/model")
    return Outcome(
        files=files, figures={"prefix": f"{folder}/model", "digest": folder_digest(files, f"{folder}/model"), "new_head": False}
    )
