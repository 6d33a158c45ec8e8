"""Stage 3: hits and labels become negatives; mining.json says what was taken and what was not."""

from __future__ import annotations

from typing import Any

import numpy as np

from cluster.commits import Commit, Outcome
from jobs.context import Context
from jobs.stage_0_ingest import Ingested
from mining.negatives import HARDNESS_EDGES, Counts, MineTask, mine


def mine_round(context: Context, ingested: Ingested, hits: Commit, *, number: int) -> Commit:
    """The negatives of every training query for round `number`."""
    settings = context.config.mining

    def work(folder: str) -> Outcome:
        task = MineTask(context.store, hits.parts("hits"), ingested.labels, ingested.corpus, ingested.queries, settings,
                        f"{folder}/negatives", context.config.rounds.seed + number)
        parts, counts = mine(task, retries=context.config.cluster.retries)
        figures = summarise(counts) | {"engine": hits.figures["engine"], "negatives": context.store.url(folder + "/negatives")}
        context.store.write_json(f"{folder}/mining.json", figures)
        context.store.write_json(f"rounds/{number:02d}/mining.json", figures)
        return Outcome(tables={"negatives": parts}, figures=figures)

    inputs = {"hits": hits.key, "tables": ingested.tables.key, "seed": context.config.rounds.seed,
              "mining": settings.model_dump(exclude={"search", "embedding_dtype", "low_hit_rate", "high_suspected"})}
    commit = context.stage("mine", f"round-{number:02d}-mine", folder=f"rounds/{number:02d}/mine", inputs=inputs, work=work)
    for text in warnings(commit.figures, settings.low_hit_rate, settings.num_negatives):
        context.progress.say(f"! {text}")
    return commit


def summarise(counts: Counts) -> dict[str, Any]:
    """The counts as mining.json has them."""
    return {
        "queries": counts.queries, "candidates": counts.candidates, "survivors": counts.survivors,
        "hit_rate": counts.survivors / max(1, counts.candidates), "dropped": counts.dropped,
        "chosen": counts.chosen, "judged": counts.judged,
        "queries_short": counts.queries_short, "queries_empty": counts.queries_empty,
        "suspected_false_negatives": counts.suspected, "above_positive": counts.above_positive,
        "hardness": percentiles(counts.hardness),
    }


def percentiles(histogram: Any) -> dict[str, float]:
    """Percentiles of negative − positive score from its histogram (bins of 0.005)."""
    total = histogram.sum()
    if not total:
        return {}
    reached = np.cumsum(histogram) / total
    return {f"p{p}": round(float(HARDNESS_EDGES[1:][np.searchsorted(reached, p / 100)]), 4) for p in (5, 25, 50, 75, 95)}


def warnings(figures: dict[str, Any], low_hit_rate: float, num_negatives: int) -> list[str]:
    """What a person should know about this mining."""
    found = []
    if figures["hit_rate"] < low_hit_rate:
        worst = max(figures["dropped"], key=figures["dropped"].get, default="")
        found.append(f"hit rate {figures['hit_rate']:.1%} is below {low_hit_rate:.0%}: the filters are too strict for this "
                     f"model; {worst} dropped most ({figures['dropped'].get(worst, 0):,} of {figures['candidates']:,})")
    if figures["queries_short"] > 0.2 * figures["queries"]:
        found.append(f"{figures['queries_short']:,} of {figures['queries']:,} queries have fewer than {num_negatives} "
                     f"negatives; raise mining.num_hits")
    if figures["suspected_false_negatives"] > 0.1 * figures["candidates"]:
        found.append(f"{figures['suspected_false_negatives']:,} of {figures['candidates']:,} candidates score above the "
                     f"query's best positive: many may be unlabelled positives")
    return found
