"""Candidates of other sources than the model's own search: collected side by side, then scored by the current model."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.commits import Commit, Outcome
from cluster.session.resources import search_pool
from jobs.record.plan import other_sources, source_stage
from jobs.record.stages import Kind, ModelName, SourceName, Stage
from jobs.stages.chosen import mining_model
from jobs.stages.context import Context, MakeStage
from jobs.stages.ingested import read_ingested
from jobs.stages.stage_2_search import blocks_of_split, mined_split, search_queries
from mining.candidates import ExtraParts
from mining.settings import SourceKind
from mining.sources.bm25 import Bm25Task, search_words
from mining.sources.pairs import PairsTask, write_pairs


@dataclass(frozen=True)
class ExtraCandidates:
    """What a mining reads besides the hits of its own search."""

    pairs: Commit | None = None
    """Other sources' candidates side by side; None: there are no other sources."""
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


def extra_candidates(context: Context, stage: Stage) -> ExtraCandidates:
    """What every source of mining.sources but the model's own search has for a mining.

    Args:
        stage: any stage of the mining.
    """
    sources = other_sources(context.config, stage.of if isinstance(stage.of, ModelName) else None)
    earlier = context.need(source_stage("earlier", stage)) if _has_earlier(stage) else None
    if "baseline" not in sources and any(source.kind == "baseline" for source in context.config.mining.sources):
        context.progress.say(
            f'  {stage.of or stage.scope}: the model is still the off-the-shelf one, so mining.sources "baseline" adds '
            f"nothing here"
        )
    if not sources:
        return ExtraCandidates(earlier=earlier)
    pairs, scored = (context.need(stage.sibling(kind)) for kind in (Kind.PAIRS, Kind.SCORE))
    return ExtraCandidates(pairs, scored, earlier)


def find_pairs(context: Context, stage: Stage) -> Commit:
    """The candidates of all other sources side by side, one part for each block of queries."""
    config = context.config
    sources = other_sources(config, stage.of if isinstance(stage.of, ModelName) else None)
    commits = {source: context.need(source_stage(source, stage)) for source in sources}
    candidates = {str(kind): commit.parts("negatives" if kind == "earlier" else "hits") for kind, commit in commits.items()}
    hits = context.need(stage.sibling(Kind.SEARCH))

    def work(folder: str) -> Outcome:
        blocks = blocks_of_split(context, read_ingested(context), str(hits.inputs["split"]))
        task = PairsTask(context.store, hits.parts("hits"), candidates, f"{folder}/pairs")
        parts, count = write_pairs(task, blocks, retries=config.cluster.retries)
        return Outcome(tables={"pairs": parts}, figures={"sources": sorted(candidates), "to_score": count})

    # the blocks as well: the search that scores the pairs takes them part by part
    keys = {kind: commit.key for kind, commit in commits.items()}
    inputs = {"hits": hits.key, "sources": keys, "query_block": config.cluster.query_block}
    return context.commit(stage, inputs=inputs, work=work)


def score_pairs(context: Context, stage: Stage) -> Commit:
    """The scores of the other sources' candidates under the model that mines."""
    vectors = context.need(Stage(Kind.EMBED, mining_model(context.config, stage.of)))
    pairs = context.need(stage.sibling(Kind.PAIRS))
    split = mined_split(context, stage.scope)
    return search_queries(context, stage, vectors, split=split, num_hits=0, also=pairs.parts("pairs"))


def find_candidates(context: Context, stage: Stage) -> Commit:
    """The candidates (table "hits") of a source that is a search of its own."""
    assert isinstance(stage.of, SourceName)
    return FINDERS[stage.of.kind](context, stage)


def search_bm25(context: Context, stage: Stage) -> Commit:
    """The nearest items of every query by their words."""
    config, data, split = context.config, read_ingested(context), mined_split(context, stage.scope)

    def work(folder: str) -> Outcome:
        blocks = blocks_of_split(context, data, split)
        task = Bm25Task(
            context.store,
            data.corpus,
            data.codes,
            data.queries,
            data.labels,
            int(data.tables.figures["queries"]),
            config.mining.num_hits,
            f"{folder}/blocks-of-{config.cluster.query_block}",  # blocks of another size are other parts
        )
        parts, seconds = search_words(
            task,
            blocks,
            threads=search_pool(config.cluster, context.size).cpus,
            retries=config.cluster.retries,
            mailbox=context.progress.mailbox,
        )
        queries = sum(len(block.query_rows) for block in blocks)
        return Outcome(tables={"hits": parts}, work_seconds=seconds, figures={"queries": queries})

    inputs = {"tables": data.tables.key, "split": split, "num_hits": config.mining.num_hits}
    return context.commit(stage, inputs=inputs, work=work)


def _has_earlier(stage: Stage) -> bool:
    return isinstance(stage.of, ModelName) and stage.of.round > 1


FINDERS: dict[SourceKind, MakeStage] = {"bm25": search_bm25}
"""What finds the candidates of each source that is a search of its own."""
