"""`hardmine advise`: collect data, train a re-ranker, or train the embeddings first? From labels and figures; starts nothing.

It reads what the run has committed, else the label and query files, if they are not too large.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from cluster.errors import DataError
from eval.readiness import LabelCounts, OffTheShelf, advise, as_json
from jobs.config.config import Config
from jobs.record.record import MeasuredModel, RunRecord
from jobs.record.stages import Kind
from jobs.run.driver import open_run
from jobs.stages.ingest.counts.quick_counts import quick_counts, readable

GENERATED = "synthetic"
"""Source of labels that were generated."""


def advise_on(config: Config, *, reranker_from: int, embeddings_from: int) -> dict[str, Any]:
    """What `hardmine advise --json` prints.

    Raises:
        ConfigError: the folder holds another run. DataError: the data is wrong, or too large to be read here.
    """
    store, _ = open_run(config, writes=False)
    record = RunRecord.read(store)
    counts, figures = label_counts(_counted(config, record)), off_the_shelf(record, config.evaluation.primary)
    advice = advise(counts, figures, reranker_from=reranker_from, embeddings_from=embeddings_from)
    table = record.reranked
    told = table.figures["reranking"]["sentence"] if table else None
    return {**as_json(advice, counts, figures), "reranked": told, "output": store.root}


def _counted(config: Config, record: RunRecord) -> Mapping[str, Any]:
    """Counts of the data, from the run's tables if they are committed."""
    ingested = record.find(Kind.INGEST)
    if ingested is not None:
        return ingested.figures
    why_not = readable(config)
    if why_not:
        raise DataError(f"{why_not}; `hardmine evaluate CONFIG --round -1` reads the data and measures the off-the-shelf model")
    return quick_counts(config, 0)


def label_counts(figures: Mapping[str, Any]) -> LabelCounts:
    """From the counts of the ingest stage, or of `quick_counts`."""
    labels, positive = figures["training_labels"], figures["with_positive"]
    generated = int(labels["relevant"].get(GENERATED, 0))
    return LabelCounts(
        examples=sum(labels["relevant"].values()) - generated,
        synthetic=generated,
        queries=int(positive["train"]),
        negatives=int(labels["irrelevant"]),
        dev=int(positive["dev"]),
        test=int(positive["test"]),
        dev_is_cut=bool(figures.get("dev_queries_cut_from_train")),
    )


def off_the_shelf(record: RunRecord, primary: str) -> OffTheShelf | None:
    """The figures of the model that the run starts from; None: it was not measured."""
    model: MeasuredModel | None = record.baseline
    figures = model.figures if model else {}
    values: dict[str, Any] = {name: (figures.get(name) or {}).get(primary) for name in ("metrics", "attainable", "in_reach")}
    if model is None or None in values.values():
        return None
    return OffTheShelf(
        primary,
        figure=float(values["metrics"]),
        attainable=float(values["attainable"]),
        candidates=int(model.evaluation.inputs["settings"]["num_hits"]),
        in_reach=float(values["in_reach"]),
    )


def show_advice(console: Console, result: Mapping[str, Any]) -> None:
    """Print the advice."""

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    say(f"{result['answer'][0].upper()}{result['answer'][1:]}.")
    for line in result["because"]:
        say(f"  {line}")
    if result["reranked"]:
        say(f"  this run measured it: {result['reranked']}")
    for line in result["also"]:
        say(f"also: {line}")
    for line in result["missing"]:
        say(f"missing: {line}")
