"""The end of a run: the kept model as a folder that SentenceTransformer opens, and the summary."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.commits import Commit, Outcome, digest
from cluster.storage.digests import described
from cluster.storage.model_folders import Manifest, fetch_folder, upload_folder
from cluster.storage.records import write_record
from cluster.storage.store import Store, is_s3
from jobs.config.config import Config
from jobs.record.record import MeasuredModel, RunRecord
from jobs.record.stages import BASELINE, Chosen, Kind, ModelName, Reranker, Stage
from jobs.record.summary import reranker_json, summary_json
from jobs.record.usage import RERANKER, Reads
from jobs.record.version import hardmine_version, versions
from jobs.stages.chosen import best_model, measured_models, round_of
from jobs.stages.context import Context, in_worker
from jobs.stages.evaluate.reranker.scores import RerankerModel, reranker_model
from jobs.stages.finish.model_card import CardText, SplitFigures
from jobs.stages.ingested import read_ingested
from jobs.stages.stage_1_embed import Model, base_model, trained_model


def finish(context: Context, stage: Stage) -> Commit:
    """Export the best round's model and write down what the run was."""
    config, started, base = context.config, time.time(), read_ingested(context).base
    best = best_model(context, measured_models(context))
    model, inputs = finish_of(context)

    def work(folder: str) -> Outcome:
        record = RunRecord.of_commits(list({commit.name: commit for commit in context.done.values()}.values()))
        card = card_text(context, record, best, base)
        files = in_worker(export_model, context, context.store, folder, model, base, card)
        if config.reranker is not None:
            files |= in_worker(export_reranker, context, context.store, f"{folder}/{RERANKER}", _reranker(context))
        summary = summary_json(
            record,
            name=config.name,
            output="",
            primary=config.evaluation.primary,
            patience=config.rounds.patience,
            model=folder if model else None,
        )
        usage = {"reads": card.reads, "dimension": card.dimension}
        return Outcome(files=files, figures={"prefix": folder, "summary": summary, "usage": usage})

    commit = context.commit(stage, inputs=inputs, work=work)
    write_record(context.store, "run.json", run_json(config, context.prints, started))
    return commit


def card_text(context: Context, record: RunRecord, best: ModelName, base: Commit) -> CardText:
    """What the model card of the best model says."""
    config, prints = context.config, context.prints
    hub_name, text = _base_in_words(config, prints["model"])
    kept = record.expect(best)
    measured = [(kept, record.baseline), (record.measured(Chosen.BEST), record.measured(Chosen.BASELINE))]
    last = round_of(context, best)
    trained = [model for model in record.rounds if model.round <= last]
    return CardText(
        name=config.name,
        version=hardmine_version(),
        reads=what_it_reads(config, base),
        dimension=context.need(Stage(Kind.BASE)).figures["dimension"],
        label=kept.label if not best.share else merged_in_words(best, last),
        encoder=config.encoder.kind + (" with LoRA" if config.training.lora else ""),
        base=text,
        hub_name=hub_name,
        licence=context.need(Stage(Kind.BASE)).figures.get("licence", {}),
        query_text=config.data.query_text,
        item_text=config.data.item_text,
        data={name: value for name, value in prints.items() if name != "model"},
        settings=digest(finish_inputs(config, {})["config"]),
        primary=config.evaluation.primary,
        confidence=config.evaluation.confidence,
        figures=[_split_figures(model, baseline) for model, baseline in measured if model and baseline],
        reranking=reranker_json(record),
        reranker_kind=config.reranker.kind if config.reranker else "cross_encoder",
        rounds=[
            (model.label, str(figures["negatives"]), int(figures["steps"]), figures["train_loss"])
            for model in trained
            if model.train and (figures := model.train.figures)
        ],
    )


def merged_in_words(best: ModelName, trained: int) -> str:
    """What a merged model is, in the middle of a sentence. Args: trained: the round that is averaged."""
    rest = f"{best.share} % of its weights and {100 - best.share} % of the weights that the run started from"
    return f"{ModelName(trained).label}, averaged with its start ({rest}),"


def what_it_reads(config: Config, base: Commit) -> Reads:
    """What the exported model reads. Args: base: the model that training starts from."""
    if config.encoder.kind == "sequence":
        return "histories"
    return "vectors" if config.encoder.kind == "adapter" and "prefix" not in base.figures else "texts"


def _base_in_words(config: Config, fingerprint: str | None) -> tuple[str | None, str]:
    """(the base model's name on the hub, if it is from there; what it is)."""
    name = config.encoder.model
    if name is None:
        new = {"static": "a new static model", "adapter": "vectors that came with the data"}
        return None, new.get(config.encoder.kind, "the items' vectors that came with the data")
    if is_s3(name) or Path(name).is_dir():
        return None, f"`{name.rstrip('/').rpartition('/')[2]}`" + ("" if is_s3(name) else f" (content {fingerprint})")
    return name, f"[{name}](https://huggingface.co/{name})"


def _split_figures(model: MeasuredModel, baseline: MeasuredModel) -> SplitFigures:
    return SplitFigures(model.split, model.queries, model.metrics, baseline.metrics, model.change("baseline"))


def finish_of(context: Context) -> tuple[Model | None, dict[str, Any]]:
    """(the kept model, None: the data's own vectors; all that the end of the run depends on)."""
    best = best_model(context, measured_models(context))
    model = base_model(read_ingested(context).base) if best == BASELINE else trained_model(context, best)
    evaluation = context.need(Stage(Kind.EVALUATE, best)).key
    inputs = finish_inputs(context.config, context.prints)
    if context.config.reranker is not None:
        inputs["reranked"] = context.need(Stage(Kind.RERANKED)).key
    return model, inputs | {"evaluation": evaluation, "model": model.digest if model else None}


def _reranker(context: Context) -> RerankerModel:
    model = reranker_model(context, Reranker.FINE_TUNED)
    assert model is not None, "what was trained has a head"
    return model


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
    packages = ("ray", "torch", "deepspeed", "pyarrow", "transformers", "numpy")
    return {"config": config.model_dump(mode="json"), "data": dict(prints), "written": started, "versions": versions(packages)}


def export_reranker(store: Store, folder: str, model: RerankerModel) -> Manifest:
    """The re-ranker below `folder` in storage, as a folder that sentence-transformers opens; its manifest."""
    return upload_folder(fetch_folder(store, model.files, model.prefix), store, folder)


def export_model(store: Store, folder: str, model: Model | None, base: Commit, card: CardText) -> dict[str, Any]:
    """The model below `folder` in storage, with its card; its manifest."""
    if model is None:  # the data's own vectors are best: there is no model to export
        path = f"{folder}/none.json"
        store.write_json(path, {"model": None, "reason": "the vectors that came with the data were best"})
        return {path: described(store.read_bytes(path))}
    local = fetch_folder(store, model.files, model.prefix)
    from training.encoders.adapter import servable_folder

    frozen = fetch_folder(store, base.files, base.figures["prefix"]) if model.reads_base and "prefix" in base.figures else None
    with tempfile.TemporaryDirectory(prefix="hardmine-export-") as target:
        served = servable_folder(local, frozen, Path(target))
        path, text = f"{folder}/README.md", card.write(served).encode()
        files = upload_folder(served, store, folder)
    store.write_bytes(path, text)  # not into `served`, which may be this node's copy of a model that others read
    return files | {path: described(text)}
