"""What a person should know about a mining: mining.json with all figures, mining.md to read, and the warnings."""

from __future__ import annotations

import hashlib
from typing import Any

from cluster.commits import Commit, Outcome
from jobs.record.stages import Kind, Stage
from jobs.stages.context import Context
from jobs.stages.ingested import read_ingested
from mining.report.counts import Counts, percentiles
from mining.report.describe import DescribeTask, describe
from mining.report.markdown import markdown
from mining.report.warnings import warnings

REPORT_ONLY = {"confusion", "samples", "low_hit_rate", "high_suspected"}
"""Settings that change the report and no negative."""


def summarise(counts: Counts) -> dict[str, Any]:
    """The counts as mining.json has them."""
    named = {"suspected": "suspected_false_negatives", "from_source": "sources"}
    figures = {named.get(name, name): value for name, value in vars(counts).items() if name != "hardness"}
    return figures | {"hit_rate": counts.survivors / max(1, counts.candidates), "hardness": percentiles(counts.hardness)}


def report_mining(context: Context, stage: Stage) -> Commit:
    """Describe the negatives of a mining; leaves mining.json and mining.md in its own folder and in the round's.

    Its figures are all of mining.json but the samples.
    """
    config, ingested, folder = context.config, read_ingested(context), stage.root
    settings = config.mining
    mined, hits = context.need(stage.sibling(Kind.MINE)), context.need(stage.sibling(Kind.SEARCH))

    def work(place: str) -> Outcome:
        task = DescribeTask(
            store=context.store,
            negatives=mined.parts("negatives"),
            corpus=ingested.corpus,
            queries=ingested.queries,
            labels=ingested.labels,
            num_items=int(ingested.tables.figures["items"]),
            num_queries=int(ingested.tables.figures["queries"]),
            settings=settings,
            seed=config.rounds.seed,
        )
        described = describe(task, retries=config.cluster.retries)
        samples = described.pop("samples")
        search = {**hits.figures, "seconds": hits.seconds}
        figures = {**mined.figures, **described, "search": search, "report": context.store.url(f"{folder}/mining.md")}
        figures["warnings"] = warnings(figures, settings)
        text = markdown(f"{config.name}, {mined.name}", figures | {"samples": samples}, settings)
        for there in (place, folder):
            context.store.write_json(f"{there}/mining.json", figures | {"samples": samples})
            context.store.write_bytes(f"{there}/mining.md", text.encode())
        digest = hashlib.sha256(text.encode()).hexdigest()
        return Outcome(files={f"{place}/mining.md": {"bytes": len(text.encode()), "sha256": digest}}, figures=figures)

    inputs = {"mine": mined.key, "settings": settings.model_dump(include=REPORT_ONLY)}
    report = context.commit(stage, inputs=inputs, work=work)
    for text in report.figures["warnings"]:
        context.progress.say(f"! {text}")
    return report
