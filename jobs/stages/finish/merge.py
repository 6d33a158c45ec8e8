"""Merged models: averages of the best round's model and the one that the run started from, between which dev chooses."""

from __future__ import annotations

import tempfile
from pathlib import Path

from cluster.commits import Commit, Outcome
from cluster.storage.model_folders import Manifest, fetch_folder, upload_folder
from cluster.storage.store import Store
from jobs.record.stages import BASELINE, ModelName, Stage
from jobs.stages.chosen import best_model, trained_rounds
from jobs.stages.context import Context, in_worker
from jobs.stages.stage_1_embed import Model, trained_model


def merge_models(context: Context, stage: Stage) -> Commit:
    """Average the best round's model with the run's start, also where no round is better than the off-the-shelf model."""
    assert isinstance(stage.of, ModelName)
    share, best = stage.of.share, best_model(context, trained_rounds(context))
    trained, start = trained_model(context, best), trained_model(context, BASELINE)

    def work(folder: str) -> Outcome:
        prefix = f"{folder}/model"
        files, cosine = in_worker(merge_in_storage, context, context.store, trained, start, share / 100, prefix)
        return Outcome(files=files, figures={"prefix": prefix, "round": best.round, "share": share, "cosine": cosine})

    inputs = {"trained": trained.digest, "start": start.digest, "share": share, "round": best.round}
    return context.commit(stage, inputs=inputs, work=work)


def merge_in_storage(store: Store, trained: Model, start: Model, share: float, prefix: str) -> tuple[Manifest, float]:
    """(what was uploaded to `prefix`, cosine between the weights of both models)."""
    from training.encoders.prepare.merge import merge_folders

    ours, first = (fetch_folder(store, model.files, model.prefix) for model in (trained, start))
    with tempfile.TemporaryDirectory(prefix="hardmine-merge-") as target:
        cosine = merge_folders(ours, first, share, Path(target))
        return upload_folder(Path(target), store, prefix), cosine
