"""What a person should know about a mining: mining.json with all figures, mining.md to read, and the warnings."""

from __future__ import annotations

import hashlib
from typing import Any

from cluster.commits import Commit, Outcome
from jobs.stages.context import Context
from jobs.stages.ingested import Ingested
from mining.report.counts import Counts, percentiles
from mining.report.describe import DescribeTask, describe
from mining.report.markdown import markdown
from mining.report.warnings import warnings

REPORT_ONLY = {"confusion", "samples", "low_hit_rate", "high_suspected"}
"""Settings that change the report and no negative."""
FORMAT = 1
"""Part of a report's key: another number makes the reports of earlier versions anew."""


def summarise(counts: Counts) -> dict[str, Any]:
    """The counts as mining.json has them."""
    named = {"suspected": "suspected_false_negatives", "from_source": "sources"}
    figures = {named.get(name, name): value for name, value in vars(counts).items() if name != "hardness"}
    return figures | {"hit_rate": counts.survivors / max(1, counts.candidates), "hardness": percentiles(counts.hardness)}


def report_mining(context: Context, ingested: Ingested, mined: Commit, hits: Commit, *, name: str, folder: str) -> Commit:
    """Describe the negatives of stage `mined`; leaves mining.json and mining.md in its own folder and in `folder`.

    Its figures are all of mining.json but the samples.
    """
    config = context.config
    settings = config.mining

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

    inputs = {"mine": mined.key, "format": FORMAT, "settings": settings.model_dump(include=REPORT_ONLY)}
    return context.stage("report", name, folder=f"{folder}/report", inputs=inputs, work=work)
