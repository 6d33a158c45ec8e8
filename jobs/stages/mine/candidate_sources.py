"""Where a mining's candidates come from besides its own search: found, put side by side, and scored by the current model."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.commits import Commit, Outcome
from cluster.resources import search_pool
from cluster.tables import Part
from jobs.stages.context import Context
from jobs.stages.ingested import Ingested
from jobs.stages.stage_2_search import rows_of_split, search_queries
from mining.candidates import ExtraParts
from mining.search.shards import plan_blocks
from mining.sources.bm25 import Bm25Task, search_words
from mining.sources.pairs import PairsTask, write_pairs


@dataclass(frozen=True)
class ExtraCandidates:
    """What a mining reads besides the hits of its own search."""

    pairs: Commit | None = None
    """Other sources' finds side by side; None: there are no other sources."""
    scored: Commit | None = None
    """Their scores under the current model."""
    earlier: Commit | None = None
    """The mining of the round before, whether it is a source or not; None: there was none."""

    @property
    def keys(self) -> dict[str, str | None]:
        """What tells them apart, for the key of the mining."""
        return {
            name: commit.key if commit else None
            for name, commit in (("pairs", self.pairs), ("scored", self.scored), ("earlier", self.earlier))
        }

    def parts(self, context: Context) -> ExtraParts | None:
        """As the mining reads them; None: the search's hits are the only candidates."""
        if self.pairs is None or self.scored is None:
            return None
        shares: dict[str, float] = {
            source.kind: source.share
            for source in context.config.mining.sources
            if source.kind in ("model", *self.pairs.figures["sources"])
        }
        return ExtraParts(self.pairs.parts("pairs"), self.scored.parts("hits"), shares)


def extra_candidates(
    context: Context,
    ingested: Ingested,
    hits: Commit,
    *,
    vectors: Commit,
    baseline: Commit,
    earlier: Commit | None,
    name: str,
    folder: str,
    split: str = "train",
    once: str = "",
) -> ExtraCandidates:
    """Ask every source of mining.sources but the model's own search, whose `hits` are given.

    Args:
        vectors: of the current model, which `hits` are of.
        baseline: vectors of the off-the-shelf model.
        earlier: the mining of the round before.
        name, folder: how this mining's stages are called, "round-01", and where they lie.
        split: whose queries `hits` are of.
        once: what the names of stages start with that are the same for every round.
    """
    found: dict[str, list[Part]] = {}
    keys: dict[str, str] = {}

    def add(kind: str, commit: Commit, table: str) -> None:
        found[kind], keys[kind] = commit.parts(table), commit.key

    for source in context.config.mining.sources:
        if source.kind == "bm25":
            add("bm25", _bm25(context, ingested, f"{once}bm25", split), "hits")
        elif source.kind == "earlier" and earlier is not None:
            add("earlier", earlier, "negatives")
        elif source.kind == "baseline" and vectors.key != baseline.key:
            add(
                "baseline",
                search_queries(
                    context,
                    ingested,
                    baseline,
                    name=f"{once}baseline-search",
                    folder="baseline/hits-train",
                    split=split,
                    num_hits=context.config.mining.num_hits,
                    exclude_known=True,
                    settings=context.config.mining.search,
                ),
                "hits",
            )
        elif source.kind == "baseline":
            context.progress.say(
                f'  {name}: the model is still the off-the-shelf one, so mining.sources "baseline" adds nothing here'
            )
    if not found:
        return ExtraCandidates(earlier=earlier)
    pairs = _pairs(context, ingested, hits, found, keys, f"{name}-pairs", f"{folder}/pairs", split)
    scored = search_queries(
        context,
        ingested,
        vectors,
        name=f"{name}-score",
        folder=f"{folder}/score",
        split=split,
        num_hits=0,
        also=pairs.parts("pairs"),
    )
    return ExtraCandidates(pairs, scored, earlier)


def _bm25(context: Context, ingested: Ingested, name: str, split: str) -> Commit:
    config = context.config

    def work(place: str) -> Outcome:
        rows = rows_of_split(context, ingested, split)
        task = Bm25Task(
            context.store,
            ingested.corpus,
            ingested.queries,
            ingested.labels,
            int(ingested.tables.figures["queries"]),
            config.mining.num_hits,
            f"{place}/blocks-of-{config.cluster.query_block}",
        )  # blocks of another size are other parts
        parts, seconds = search_words(
            task,
            plan_blocks(rows, config.cluster.query_block),
            threads=search_pool(config.cluster, context.size).cpus,
            retries=config.cluster.retries,
            mailbox=context.progress.mailbox,
        )
        return Outcome(tables={"hits": parts}, work_seconds=seconds, figures={"queries": len(rows)})

    inputs = {"tables": ingested.tables.key, "split": split, "num_hits": config.mining.num_hits}
    return context.stage("search", name, folder="bm25", inputs=inputs, work=work)


def _pairs(
    context: Context,
    ingested: Ingested,
    hits: Commit,
    found: dict[str, list[Part]],
    keys: dict[str, str],
    name: str,
    folder: str,
    split: str,
) -> Commit:
    config = context.config

    def work(place: str) -> Outcome:
        blocks = plan_blocks(rows_of_split(context, ingested, split), config.cluster.query_block)
        task = PairsTask(context.store, hits.parts("hits"), found, f"{place}/pairs")
        parts, count = write_pairs(task, blocks, retries=config.cluster.retries)
        return Outcome(tables={"pairs": parts}, figures={"sources": sorted(found), "to_score": count})

    # the blocks as well: the search that scores the pairs takes them part by part
    inputs = {"hits": hits.key, "sources": keys, "query_block": config.cluster.query_block}
    return context.stage("search", name, folder=folder, inputs=inputs, work=work)
