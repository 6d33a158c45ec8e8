"""Several sources of candidates over two rounds, on vectors and texts written here: no model, no training."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.commits import Commit, Ledger
from cluster.session.progress import Progress
from cluster.session.resources import ClusterSize
from cluster.storage.store import Store
from cluster.tables.tables import F32, Part, part_name, read_parts, vectors_to_column, write_part
from jobs.config.config import Config, parse_config
from jobs.record.plan import plan_run
from jobs.record.stages import BASELINE, Kind, ModelName, Stage
from jobs.run.rounds import FUNCTIONS
from jobs.stages.context import Context
from jobs.stages.ingested import Ingested
from jobs.stages.mine.candidate_sources import ExtraCandidates, extra_candidates
from mining.candidates import SOURCES, load_candidates
from mining.negatives import MineTask, load_side
from mining.sources.bm25 import WordIndex

ITEMS, QUERIES, HITS, NEGATIVES = 80, 30, 12, 6
SHARES = {"model": 0.4, "baseline": 0.3, "bm25": 0.2, "earlier": 0.1}


def config_of(kinds: list[str], **sections: Any) -> Config:
    values: dict[str, Any] = {
        "name": "run",
        "output": "out",
        "data": {"corpus": "c.jsonl", "queries": "q.jsonl", "qrels": "l.jsonl"},
        "mining": {
            "num_hits": HITS,
            "num_negatives": NEGATIVES,
            "relative_margin": "off",
            "samples": 2,
            "sources": [{"kind": kind, "share": SHARES[kind]} for kind in kinds],
        },
        "training": {"hard_negatives": NEGATIVES},
        "cluster": {"cpus": 2, "query_block": 7},
        "rounds": {"mined": 3},
        "encoder": {"kind": "static"},
    }
    return parse_config(values | sections, source="test")


def mining_names(config: Config) -> list[str]:
    """The stages of a run that find candidates or choose among them."""
    last = ("search", "bm25", "pairs", "score", "mine")
    return [name for name in (stage.name for stage in plan_run(config)) if name.rpartition("-")[2] in last]


def test_stages_come_in_the_first_round_that_needs_them() -> None:
    assert mining_names(config_of(["model"])) == [
        f"round-{number:02d}-{stage}" for number in (1, 2, 3) for stage in ("search", "mine")
    ]
    assert mining_names(config_of(["model", "earlier"]))[:6] == [
        "round-01-search",
        "round-01-mine",
        "round-02-search",
        "round-02-pairs",
        "round-02-score",
        "round-02-mine",
    ]
    assert mining_names(config_of(["bm25", "model", "baseline"]))[:10] == [
        "round-01-search",
        "bm25",
        "baseline-search",
        "round-01-pairs",
        "round-01-score",
        "round-01-mine",
        "round-02-search",
        "round-02-pairs",
        "round-02-score",
        "round-02-mine",
    ]


def test_without_a_warm_up_the_first_mined_model_is_the_off_the_shelf_one() -> None:
    names = mining_names(config_of(["model", "baseline"], rounds={"mined": 2, "warmup_epochs": 0}))
    assert names == [
        "round-01-search",
        "round-01-mine",
        "round-02-search",
        "baseline-search",
        "round-02-pairs",
        "round-02-score",
        "round-02-mine",
    ]


@dataclass
class World:
    """A run after its ingest, with the vectors of three models."""

    context: Context
    ingested: Ingested
    models: dict[str, Commit]
    matrices: dict[str, tuple[F32, F32]]
    texts: tuple[list[str], list[str]]
    said: io.StringIO

    def mine(self, number: int) -> tuple[Commit, ExtraCandidates, Commit]:
        """A round's search, other sources and mining."""
        stage = Stage(Kind.MINE, ModelName(number))
        hits = self.context.need(stage.sibling(Kind.SEARCH))
        return hits, extra_candidates(self.context, stage), self.context.need(stage)


TRAIN = np.array([row for row in range(QUERIES) if row % 3 != 2])
"""Train rows; the others are dev's. Item n is relevant to query n."""


def unit(generator: np.random.Generator, rows: int) -> F32:
    vectors = generator.normal(size=(rows, 8)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).astype(np.float32)


def make_world(root: Path, size: ClusterSize, config: Config) -> World:
    """A run on which nothing is mined yet."""
    store, generator, said = Store(str(root)), np.random.default_rng(3), io.StringIO()

    def parts(folder: str, table: pa.Table) -> list[Part]:
        return [
            write_part(store, f"{folder}/{part_name(number)}", table.slice(start, 25), first_row=start)
            for number, start in enumerate(range(0, table.num_rows, 25))
        ]

    def commit(key: str, tables: dict[str, pa.Table], **figures: Any) -> Commit:
        written = {name: [part.to_json() for part in parts(f"{key}/{name}", table)] for name, table in tables.items()}
        return Commit(key, key, {}, written, figures=figures)

    texts = [[" ".join(f"w{word}" for word in generator.integers(0, 40, 5)) for _ in range(count)] for count in (ITEMS, QUERIES)]
    corpus = pa.table(
        {
            "row": range(ITEMS),
            "id": [f"i{row}" for row in range(ITEMS)],
            "text": texts[0],
            "text_code": range(ITEMS),
            "group_code": [-1] * ITEMS,
        }
    )
    queries = pa.table(
        {
            "row": range(QUERIES),
            "id": [f"q{row}" for row in range(QUERIES)],
            "text": texts[1],
            "split": ["train" if row in TRAIN else "dev" for row in range(QUERIES)],
            "text_code": range(QUERIES),
            "item_row": [-1] * QUERIES,
        }
    )
    labels = pa.table({"query_row": range(QUERIES), "item_row": range(QUERIES), "score": [1] * QUERIES})
    tables = commit(
        "tables",
        {"corpus": corpus, "codes": corpus.select(["text_code", "group_code", "id"]), "queries": queries, "labels": labels},
        items=ITEMS,
        queries=QUERIES,
        dimension=None,
        splits={"train": len(TRAIN), "dev": QUERIES - len(TRAIN)},
    )
    matrices = {name: (unit(generator, ITEMS), unit(generator, QUERIES)) for name in ("baseline", "first", "second")}
    models = {
        name: commit(
            name,
            {
                table: pa.table({"row": range(len(matrix)), "vector": vectors_to_column(matrix)})
                for table, matrix in zip(("corpus", "queries"), pair, strict=True)
            },
        )
        for name, pair in matrices.items()
    }
    context = Context(config, store, Ledger(store), Progress(stream=said), size, {}, FUNCTIONS)
    context.done = {Stage(kind): tables for kind in (Kind.INGEST, Kind.BASE, Kind.TOKENS)}
    # the off-the-shelf model, the warm-up's and the first round's
    names = (BASELINE, ModelName(0), ModelName(1))
    context.done |= {Stage(Kind.EMBED, name): commit for name, commit in zip(names, models.values(), strict=True)}
    return World(context, Ingested(tables, tables, None, None), models, matrices, (texts[0], texts[1]), said)


@dataclass
class TwoRounds:
    """A run of which two rounds are mined from every source."""

    world: World
    first: Commit
    hits: Commit
    """Of the second round."""
    extra: ExtraCandidates
    second: Commit


@pytest.fixture(scope="module")
def two_rounds(tmp_path_factory: pytest.TempPathFactory, ray_local: ClusterSize) -> TwoRounds:
    """Mined once for all tests of this file."""
    world = make_world(tmp_path_factory.mktemp("run"), ray_local, config_of(list(SHARES)))
    return TwoRounds(world, world.mine(1)[2], *world.mine(2))


def nearest(world: World, model: str, query: int) -> list[int]:
    """The HITS items nearest to a query, but for the relevant one."""
    items, queries = world.matrices[model]
    scores = items.astype(np.float64) @ queries[query].astype(np.float64)
    return [row for row in np.argsort(-scores, kind="stable").tolist() if row != query][:HITS]


def by_words(world: World, query: int) -> list[int]:
    offsets = np.array([0, 1])
    _, _, rows = WordIndex(world.texts[0]).best([world.texts[1][query]], HITS, (offsets, np.array([query])))
    return [int(row) for row in rows]


def slow_candidates(world: World, model: str, query: int, earlier: list[int]) -> list[tuple[int, str, int]]:
    """(row, source, position) of a query's candidates, fused."""
    lists = {
        "model": nearest(world, model, query),
        "baseline": nearest(world, "baseline", query),
        "bm25": by_words(world, query),
        "earlier": earlier,
    }
    shares = {kind: share for kind, share in SHARES.items() if lists["earlier"] or kind != "earlier"}
    weight = {
        row: sum(share / (61 + lists[kind].index(row)) for kind, share in shares.items() if row in lists[kind])
        for kind in shares
        for row in lists[kind]
    }
    best = {
        row: min((lists[kind].index(row), place) for place, kind in enumerate(shares) if row in lists[kind]) for row in weight
    }
    return [(row, list(shares)[best[row][1]], best[row][0]) for row in sorted(weight, key=lambda row: (-weight[row], row))]


@pytest.mark.cluster
def test_two_rounds_fuse_what_every_source_finds(two_rounds: TwoRounds) -> None:
    world, hits = two_rounds.world, two_rounds.hits.parts("hits")
    store, ingested = world.context.store, world.ingested
    before = read_parts(store, two_rounds.first.parts("negatives"))["negative_rows"].to_pylist()
    side = load_side(
        MineTask(
            store, hits, ingested.labels, ingested.codes, ingested.corpus, ingested.queries, world.context.config.mining, "", 0
        )
    )
    items, queries = world.matrices["second"]
    blocks = [
        load_candidates(store, hits, number, side.labels, side.self_rows, two_rounds.extra.parts(world.context))[1]
        for number in range(len(hits))
    ]
    assert np.concatenate([found.query_rows for found in blocks]).tolist() == TRAIN.tolist()
    for query, rows, scores, source, position, chosen in zip(
        TRAIN.tolist(),
        *([value for found in blocks for value in getattr(found, name)] for name in ("rows", "scores", "source", "position")),
        before,
        strict=True,
    ):
        real = rows >= 0
        got = [
            (int(row), SOURCES[code], int(place))
            for row, code, place in zip(rows[real], source[real], position[real], strict=True)
        ]
        assert got == slow_candidates(world, "second", query, chosen)
        cosines = items[rows[real]].astype(np.float64) @ queries[query].astype(np.float64)
        assert np.abs(scores[real] - cosines).max() < 1e-6


@pytest.mark.cluster
def test_the_stages_are_those_of_the_plan_and_what_rounds_share_is_made_once(two_rounds: TwoRounds) -> None:
    planned = mining_names(two_rounds.world.context.config)
    created = {commit.name: commit.created for commit in Ledger(two_rounds.world.context.store).all() if commit.name in planned}
    assert sorted(created, key=lambda name: created[name]) == planned[:10], "what rounds share is made once"


@pytest.mark.cluster
def test_negatives_remember_the_round_they_were_first_chosen_in(two_rounds: TwoRounds) -> None:
    store = two_rounds.world.context.store
    first, second = (
        {
            (row["query_row"], item): negative["round"]
            for row in read_parts(store, commit.parts("negatives")).to_pylist()
            for item, negative in zip(row["negative_rows"], row["negatives"], strict=True)
        }
        for commit in (two_rounds.first, two_rounds.second)
    )
    assert set(first.values()) == {1}
    assert all(since == (1 if pair in first else 2) for pair, since in second.items())
    assert two_rounds.first.figures["new"] == two_rounds.first.figures["chosen"] == len(TRAIN) * NEGATIVES
    assert 0 < two_rounds.second.figures["new"] == len(second.keys() - first.keys()) < len(second)


@pytest.mark.cluster
def test_a_round_is_kept_and_blocks_of_another_size_change_no_negative(two_rounds: TwoRounds) -> None:
    world = two_rounds.world
    _forget_second_round(world)
    hits, _, second = world.mine(2)
    assert (hits, second) == (two_rounds.hits, two_rounds.second)
    cluster = world.context.config.cluster.model_copy(update={"query_block": 8})
    world.context.config = world.context.config.model_copy(update={"cluster": cluster})
    _forget_second_round(world)
    hits, extra, other = world.mine(2)
    assert hits == two_rounds.hits, "it is cut into blocks of 7 still"
    assert extra.pairs is not None
    assert [part.rows for part in extra.pairs.parts("pairs")] == [8, 8, 4]
    assert other.key != second.key
    want, got = (read_parts(world.context.store, commit.parts("negatives")).combine_chunks() for commit in (second, other))
    assert got.equals(want)


def _forget_second_round(world: World) -> None:
    """As another driver on the same run: commits are looked for again."""
    for stage in [stage for stage in world.context.done if stage.of == ModelName(2)]:
        del world.context.done[stage]


def test_a_source_that_adds_nothing_is_told_and_skipped(tmp_path: Path) -> None:
    config = config_of(["model", "baseline", "earlier"], rounds={"mined": 2, "warmup_epochs": 0})
    world = make_world(tmp_path, ClusterSize(nodes=1, cpus=2, gpus=0), config)
    extra = extra_candidates(world.context, Stage(Kind.MINE, ModelName(1)))
    assert extra == ExtraCandidates()
    assert extra.parts(world.context) is None
    assert world.said.getvalue() == (
        '  round-01: the model is still the off-the-shelf one, so mining.sources "baseline" adds nothing here\n'
    )
