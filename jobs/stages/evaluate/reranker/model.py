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
from jobs.stages.ingest.models.second_model import named_after


def prepare_reranker(context: Context, stage: Stage) -> Commit:
    """The model that re-ranks off the shelf, and that training starts from.

    Raises:
        ConfigError: the model is missing, damaged or of another kind.
    """
    settings = context.config.reranker
    assert settings is not None
    inputs = {
        "model": folder_fingerprint(settings.model),
        "kind": settings.kind,
        "max_length": settings.max_length,
        "seed": context.config.rounds.seed,  # of a new head
    }
    return context.commit(
        stage, inputs=inputs, work=lambda folder: in_worker(make_reranker, context, context.config, context.store, folder)
    )


def make_reranker(config: Config, store: Store, folder: str) -> Outcome:
    """The model below `folder`, with the digest of its content, and whether its head is new."""
    from training.encoders.prepare.late import prepare_late
    from training.encoders.prepare.prepare import model_folder
    from training.encoders.prepare.reranker import prepare_reranker as prepare_pairs
    from training.encoders.prepare.trial import reading_model

    settings = config.reranker
    assert settings is not None
    with tempfile.TemporaryDirectory(prefix="hardmine-reranker-") as local, named_after("reranker"):
        target = Path(local)
        with reading_model(settings.model), model_folder(settings.model, config.storage) as source:
            prepare = prepare_late if settings.kind == "late_interaction" else prepare_pairs
            new_head = prepare(source, target, max_length=settings.max_length, seed=config.rounds.seed)
        files = upload_folder(target, store, f"{folder}/model")
    figures = {"prefix": f"{folder}/model", "digest": folder_digest(files, f"{folder}/model"), "new_head": new_head}
    return Outcome(files=files, figures=figures)
