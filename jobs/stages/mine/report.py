"""The report of a mining: mining.json with all figures, mining.md to read, and warnings."""

from __future__ import annotations

from dataclasses import replace

from cluster.commits import Commit, Outcome
from cluster.storage.digests import described
from jobs.record.stages import Kind, Scope, Stage
from jobs.stages.context import Context
from jobs.stages.ingested import read_ingested
from jobs.stages.mine.task import mining_settings
from mining.report.describe import DescribeTask, describe
from mining.report.figures import ChoiceFigures, MiningFigures
from mining.report.markdown import markdown
from mining.report.warnings import warnings

REPORT_ONLY = {"confusion", "samples"}
"""Settings that change the report and no negative."""


def report_mining(context: Context, stage: Stage) -> Commit:
    """Describe the negatives of a mining; leaves mining.json and mining.md in its own folder and in the round's.

    Its figures are all of mining.json but the texts to read.
    """
    config, ingested, folder = context.config, read_ingested(context), stage.root
    settings = mining_settings(config, stage.of)
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
        figures = MiningFigures.joined(
            ChoiceFigures.from_json(mined.figures),
            describe(task, retries=config.cluster.retries),
            search={**hits.figures, "seconds": hits.seconds},
            report=f"{folder}/mining.md",
        )
        found = warnings(figures, settings)
        figures = replace(figures, warnings=[one.text for one in found], advice=[one.advice for one in found])
        text = markdown(f"{config.name}, {mined.name}", figures, settings, advises=stage.scope is Scope.ALONE)
        content = figures.to_json()
        for target in (place, folder):
            context.store.write_json(f"{target}/mining.json", content)
            context.store.write_bytes(f"{target}/mining.md", text.encode())
        for texts in ("samples", "weak"):
            content.pop(texts)
        left = [f"{place}/{name}" for name in ("mining.json", "mining.md")]
        return Outcome(files={path: described(context.store.read_bytes(path)) for path in left}, figures=content)

    inputs = {"mine": mined.key, "settings": settings.model_dump(include=REPORT_ONLY)}
    report = context.commit(stage, inputs=inputs, work=work)
    alone = stage.scope is Scope.ALONE
    for text in report.figures["advice" if alone else "warnings"]:
        context.progress.say(f"! {text}")
    if report.figures["warnings"] and not alone:
        context.progress.say(f"  what to change, if anything, is told by the training: `hardmine diagnose {context.store.root}`")
    return report
