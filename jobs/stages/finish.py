"""The end of a run: the kept model as a folder that SentenceTransformer opens, and the summary."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.commits import Commit, Outcome
from cluster.storage.digests import described
from cluster.storage.model_folders import fetch_folder, upload_folder
from cluster.storage.records import write_record
from cluster.storage.store import Store
from jobs.config.config import Config
from jobs.record.record import RunRecord
from jobs.record.stages import BASELINE, Kind, Stage
from jobs.record.summary import summary_json
from jobs.stages.chosen import best_model, measured_models
from jobs.stages.context import Context, in_worker
from jobs.stages.ingested import read_ingested
from jobs.stages.stage_1_embed import Model, base_model, trained_model


def finish(context: Context, stage: Stage) -> Commit:
    """Export the best round's model and write down what the run was."""
    config, started, base = context.config, time.time(), read_ingested(context).base
    model, inputs = finish_of(context)

    def work(folder: str) -> Outcome:
        files = in_worker(export_model, context, context.store, folder, model, base)
        summary = summary_json(
            RunRecord.of_commits(list({commit.name: commit for commit in context.done.values()}.values())),
            name=config.name,
            output="",
            primary=config.evaluation.primary,
            patience=config.rounds.patience,
            model=folder if model else None,
        )
        return Outcome(files=files, figures={"prefix": folder, "summary": summary})

    commit = context.commit(stage, inputs=inputs, work=work)
    write_record(context.store, "run.json", run_json(config, context.prints, started))
    return commit


def finish_of(context: Context) -> tuple[Model | None, dict[str, Any]]:
    """(the kept model, None: the data's own vectors; all that the end of the run depends on)."""
    best = best_model(context, measured_models(context))
    model = base_model(read_ingested(context).base) if best == BASELINE else trained_model(context, best)
    evaluation = context.need(Stage(Kind.EVALUATE, best)).key
    inputs = finish_inputs(context.config, context.prints)
    return model, inputs | {"evaluation": evaluation, "model": model.digest if model else None}


def finish_inputs(config: Config, prints: Mapping[str, Any]) -> dict[str, Any]:
    """What tells a finished run from another one."""
    values = json.loads(
        config.model_dump_json(
            exclude={
                "storage": True,
                "output": True,
                "encoder": {"model"},
                "probe": True,
                "sweep": True,
                "evaluation": {"diagnosis", "gate"},
            }
        )
    )
    return {"config": values, "data": dict(prints)}


def run_json(config: Config, prints: Mapping[str, Any], started: float) -> dict[str, Any]:
    """What the run is: configuration without anything secret, versions, data."""
    from importlib.metadata import version

    packages = ("ray", "torch", "deepspeed", "pyarrow", "transformers", "numpy")
    return {
        "config": config.model_dump(mode="json"),
        "data": dict(prints),
        "written": started,
        "versions": {name: version(name) for name in packages},
    }


def export_model(store: Store, folder: str, model: Model | None, base: Commit) -> dict[str, Any]:
    """The model below `folder` in storage; its manifest."""
    if model is None:  # the data's own vectors are best: there is no model to export
        path = f"{folder}/none.json"
        store.write_json(path, {"model": None, "reason": "the vectors that came with the data were best"})
        return {path: described(store.read_bytes(path))}
    local = fetch_folder(store, model.files, model.prefix)
    from training.encoders.adapter import servable_folder

    frozen = fetch_folder(store, base.files, base.figures["prefix"]) if model.reads_base and "prefix" in base.figures else None
    with tempfile.TemporaryDirectory(prefix="hardmine-export-") as target:
        return upload_folder(servable_folder(local, frozen, Path(target)), store, folder)
