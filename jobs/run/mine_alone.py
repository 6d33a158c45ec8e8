"""`hardmine mine`: the negatives of any data set, of a round of a run or without any training, to read or to take elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster.commits import Commit
from cluster.progress import Progress
from jobs.config.config import load_config
from jobs.export.negatives import Export, check_export, export_negatives
from jobs.run.driver import run_stage
from jobs.run.order import refuse_out_of_order
from jobs.run.rounds import run_rounds
from jobs.stages.context import Context, Only
from jobs.stages.ingested import Ingested
from jobs.stages.mine.candidate_sources import extra_candidates
from jobs.stages.mine.teacher import check_teacher
from jobs.stages.stage_0_ingest import ingest
from jobs.stages.stage_1_embed import base_model, embed_model
from jobs.stages.stage_2_search import search_queries
from jobs.stages.stage_3_mine import mine_hits
from mining.settings import MiningSettings

MADE = frozenset({"ingest", "base", "tokens", "embed", "search", "mine", "report", "near", "teacher"})


def mine_command(
    path: Path, overrides: list[str], *, number: int | None, export: Export | None, progress: Progress, takeover: bool
) -> tuple[dict[str, Any], MiningSettings]:
    """Mine as the command line asks; returns the figures, with "export" if there was one, and the settings they are of.

    Args:
        number: the round; None: the model as it comes, nothing is trained or evaluated.

    Raises:
        ConfigError: an earlier round is missing, or the export has no place.
    """
    config = load_config(path, overrides, trains=number is not None)
    name = "mine" if number is None else f"round-{number:02d}-mine"
    makes = MADE if number is None else MADE | {"evaluate"}
    if number is not None:
        refuse_out_of_order(config, name, makes)
    if export is not None:
        check_export(export, config)

    def after(context: Context, report: Commit) -> dict[str, Any]:
        mined = context.ledger.find(name)
        assert mined is not None
        figures = {
            "stage": "mine",
            "name": name,
            "key": mined.key,
            "seconds": mined.seconds,
            "rows": {"negatives": mined.rows("negatives")},
            **report.figures,
        }
        return figures if export is None else figures | {"export": export_negatives(context, mined, export)}

    only = Only(f"{name.removesuffix('-mine')}-report", makes, trains=number is not None)
    figures = run_stage(
        config, only, progress=progress, takeover=takeover, after=after, drive=mine_alone if number is None else run_rounds
    )
    return figures, config.mining


def mine_alone(context: Context, prints: dict[str, Any]) -> None:
    """Ingest, embed, search and mine with the model as it comes (or the data's own vectors); nothing else."""
    ingested = ingest(context, prints)
    check_teacher(context)
    vectors = embed_model(context, ingested, base_model(ingested))
    split = _minable(context, ingested)
    hits = search_queries(
        context,
        ingested,
        vectors,
        name="mine-search",
        folder="mine/hits",
        split=split,
        num_hits=context.config.mining.num_hits,
        exclude_known=True,
        settings=context.config.mining.search,
    )
    extra = extra_candidates(
        context,
        ingested,
        hits,
        vectors=vectors,
        baseline=vectors,
        earlier=None,
        name="mine",
        folder="mine",
        split=split,
        once="mine-",
    )
    mine_hits(context, ingested, hits, name="mine", folder="mine", number=0, extra=extra)


def _minable(context: Context, ingested: Ingested) -> str:
    """The splits whose queries are mined: where the data has no dev split, what was cut off as dev is training data."""
    cut = ingested.tables.figures.get("dev_queries_cut_from_train", 0)
    if cut:
        context.progress.say(
            f"! the data has no dev split: all its training queries are mined, the {cut:,} that "
            f"`hardmine run` would set apart as dev too"
        )
    return "train+dev" if cut else "train"
