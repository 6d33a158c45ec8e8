"""`hardmine mine`: mines for a round of a run, or any data set without training, and exports the negatives."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster.commits import Commit
from cluster.session.progress import Progress
from jobs.config.config import load_config
from jobs.finished.negatives.export import Export, check_export, export_negatives
from jobs.record.plan import trains_teacher
from jobs.record.stages import Kind, ModelName, Scope, Second, Stage
from jobs.run.driver import MAKES, open_context, refuse_out_of_order
from jobs.run.rounds import refuse_unreached
from jobs.stages.context import Context
from jobs.stages.ingested import read_ingested
from mining.settings import MiningSettings


def mine_command(
    path: Path, overrides: list[str], *, number: int | None, export: Export | None, progress: Progress, takeover: bool
) -> tuple[dict[str, Any], MiningSettings]:
    """Mine, and export if asked to; returns (figures, with "export" if there was one; the mining settings).

    Args:
        number: the round; None: mine with the base model, train and evaluate nothing.

    Raises:
        ConfigError: an earlier round is missing, or the export cannot be written.
    """
    config = load_config(path, overrides, trains=number is not None)
    report = Stage(Kind.REPORT, scope=Scope.ALONE)
    if number is not None:
        report = Stage(Kind.REPORT, ModelName(number))
        refuse_out_of_order(config, report.sibling(Kind.MINE), MAKES[Kind.REPORT])
    if export is not None:
        check_export(export, config)
    with open_context(config, progress=progress, takeover=takeover, alone=report, trains=number is not None) as context:
        described = context.until_whole(lambda context: _drive(context, report, alone=number is None))
        mined = context.need(report.sibling(Kind.MINE))
        figures = {
            "stage": "mine",
            "name": mined.name,
            "key": mined.key,
            "seconds": mined.seconds,
            "rows": {"negatives": mined.rows("negatives")},
            **described.figures,
            **{name: context.store.url(described.figures[name]) for name in ("negatives", "report")},
        }
        if export is not None:
            figures["export"] = asdict(export_negatives(context, mined, export))
    return figures, config.mining


def _drive(context: Context, report: Stage, *, alone: bool) -> Commit:
    """All stages up to the report, in one go: what is looked up before it would be told twice."""
    if alone:
        _warn_of_held_out(context)
    if context.config.mining.teacher is not None and not trains_teacher(context.config):
        context.need(Stage(Kind.MODEL, Second.TEACHER))  # most mistakes in its settings show here
    refuse_unreached(context, report)
    return context.need(report)


def _warn_of_held_out(context: Context) -> None:
    cut = read_ingested(context).tables.figures.get("dev_queries_cut_from_train", 0)
    if cut:
        context.progress.say(
            f"! the data has no dev split: all training queries are mined, including the {cut:,} that `hardmine run` would "
            f"hold out as dev"
        )
