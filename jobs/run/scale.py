"""What a run moves, computes and holds, from counts alone. Pure.

`--dry-run` prints the bytes of its own counts; docs/scale.md holds the figures of CASE:

    python -m jobs.run.scale       prints the tables of docs/scale.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cluster.tables.fetch import RANGE_BYTES
from cluster.tables.tables import GROUP_BYTES, WHOLE_BYTES
from jobs.stages.evaluate.results import DEPTH, SAMPLE
from mining.memory import (
    NAMED_AT_ONCE,
    PROCESS_BYTES,
    SEARCHER_BYTES,
    blocks_in_flight,
    mining_task_bytes,
    most_mining_tasks,
    node_bytes,
    rows_that_fit,
    shard_actor_bytes,
    sharing_bytes,
)
from mining.search.ivf import SAMPLE_PER_LIST, usual_lists
from mining.search.recall import parts_of_sample
from training.feed.memory import PROCESS_BYTES as RANK_BYTES
from training.feed.memory import loaded_bytes, loaded_items

DRIVER_BYTES = 420 * 2**20
"""Memory of the driver, but for the rows of the queries."""
HIT_BYTES = 12
"""An item's row and its score."""
NEGATIVE_BYTES = 33
"""Row, score, position, source, the teacher's score and round of a negative, before compression."""
CODE_BYTES = 16
"""What items have in common: a text and a group. Their ids lie beside it."""
ROW_NUMBER_BYTES = 2
"""A row's number, compressed, which is fetched with the vectors that it lies between."""
GET_USD, PUT_USD = 0.0004 / 1000, 0.005 / 1000
"""A request of S3 in us-east-1, as its price list has it in 2026."""


@dataclass(frozen=True)
class Work:
    """How much there is, and on what."""

    items: int
    queries: int
    labels: int
    dimension: int
    num_hits: int
    num_negatives: int
    block: int
    """Queries of a block."""
    part_rows: int
    nodes: int
    actors_per_node: int
    node_memory: int
    """Bytes of memory that tasks may use on a node; 0: not known."""
    gpu: bool
    cpus: int = 1
    """Of all nodes."""
    vector_bytes: int = 4
    """Of a number of a vector."""
    feature_bytes: int | None = None
    """Of an item's tokens, where the encoder that is trained reads these; None: it reads vectors."""
    id_bytes: int = 12
    shards: int | None = None
    rules: int = 0
    weighted: bool = False
    """mining.popularity is set."""
    counted: bool = False
    """mining.max_uses is set."""
    hard: int = 7
    random: int = 2
    epochs: int = 1
    trained: int | None = None
    """Queries that are trained on; None: all."""
    mode: str = "exact"
    """Of the search: exact, two_stage or ivf."""
    lists: int | None = None

    @property
    def actors(self) -> int:
        """Search actors."""
        return self.nodes * self.actors_per_node

    @property
    def rows_of_shard(self) -> int:
        """Maximum items of a shard."""
        return min(self.items, rows_that_fit(self.dimension, self.node_memory, self.actors_per_node, gpu=self.gpu))

    @property
    def waves(self) -> int:
        """How often all queries are streamed through the actors."""
        if self.shards:
            return -(-self.shards // self.actors)
        return -(-self.items // (self.actors * self.rows_of_shard))

    @property
    def shard(self) -> int:
        """Items of the largest shard."""
        return -(-self.items // (self.shards or min(self.items, self.actors * self.waves)))

    @property
    def parts_searched(self) -> int:
        """Parts of item vectors that a search reads, a part that is read twice counted twice.

        An exact search reads all once; another one verifies its recall on all waves again; IVF reads its sample first.
        """
        parts = self.parts(self.items)
        again = parts if self.mode != "exact" and self.waves > 1 else 0
        wanted = SAMPLE_PER_LIST * min(self.items, self.lists or usual_lists(self.items)) if self.mode == "ivf" else 0
        return parts + again + (parts_of_sample(parts, self.part_rows, wanted) if wanted else 0)

    @property
    def vectors(self) -> int:
        """Bytes of one model's vectors of all items."""
        return self.items * self.dimension * self.vector_bytes

    @property
    def query_vectors(self) -> int:
        """Bytes of one model's vectors of all queries."""
        return self.queries * self.dimension * self.vector_bytes

    @property
    def blocks(self) -> int:
        """Blocks of queries."""
        return -(-self.queries // self.block)

    @property
    def id_passes(self) -> int:
        """How often mining reads the ids of all items: each of its tasks does, once for every NAMED_AT_ONCE that it names."""
        named = self.queries * self.num_negatives
        tasks = min(self.blocks, self.cpus, most_mining_tasks(self.items, named))
        return tasks * -(-named // tasks // NAMED_AT_ONCE)

    def parts(self, rows: int) -> int:
        """Objects of a table."""
        return -(-rows // self.part_rows)


def requests_of_part(column_bytes: int) -> int:
    """GETs for a column of a part: one if it is small, else its end and ranges."""
    return 1 if column_bytes <= WHOLE_BYTES else 1 + -(-column_bytes // RANGE_BYTES)


def memory(work: Work) -> dict[str, int]:
    """Most memory of each process, and what the processes of a node share."""
    block = min(work.block, work.queries)
    shared = node_bytes(work.items, work.labels, work.queries, work.rules, weighted=work.weighted)
    return {
        "search_actor_bytes": SEARCHER_BYTES + shard_actor_bytes(work.shard, work.dimension, block, work.num_hits),
        "mining_task_bytes": PROCESS_BYTES + mining_task_bytes(work.items if work.counted else 0, block, work.num_hits),
        "mining_node_bytes": shared,
        "mining_sharing_bytes": PROCESS_BYTES + shared + sharing_bytes(work.items),
        "driver_bytes": DRIVER_BYTES + work.queries * 8,
        "train_node_bytes": loaded_bytes(_loaded(work), work.queries, work.feature_bytes or work.dimension * work.vector_bytes),
        "train_rank_bytes": RANK_BYTES,
    }


def _loaded(work: Work) -> int:
    trained = work.queries if work.trained is None else work.trained
    positives = -(-work.labels // max(1, work.queries))
    return loaded_items(work.items, trained, positives, work.hard, work.random, work.epochs)


def stored(work: Work) -> dict[str, int]:
    """Bytes in storage."""
    return {
        "vectors_per_model_bytes": work.vectors + work.query_vectors,
        "codes_bytes": work.items * (CODE_BYTES + work.id_bytes),
        "hits_per_round_bytes": work.queries * work.num_hits * HIT_BYTES,
        "negatives_per_round_bytes": work.queries * work.num_negatives * NEGATIVE_BYTES,
    }


def gets(work: Work) -> dict[str, int]:
    """GET requests of each stage of a round on given vectors."""
    item_part = min(work.part_rows, work.items)
    vectors = requests_of_part(item_part * (work.dimension * work.vector_bytes + ROW_NUMBER_BYTES))
    ids, codes = (requests_of_part(item_part * size) for size in (work.id_bytes, CODE_BYTES))
    item_parts, query_parts = work.parts(work.items), work.parts(work.queries)
    return {
        # each block lies in one or two parts
        "search_gets": work.parts_searched * vectors + work.waves * (work.blocks + query_parts) * 2 + item_parts * codes,
        "mine_gets": work.blocks + item_parts * codes + work.id_passes * item_parts * ids + 2 * (work.blocks + query_parts),
        "train_gets": (item_parts + query_parts) * vectors + item_parts * codes + work.blocks,
    }


def read(work: Work) -> dict[str, int]:
    """Bytes that each stage reads of the items, whatever it needs of them: a row group is the least that is fetched."""
    return {
        "search_reads_bytes": work.vectors * work.parts_searched // max(1, work.parts(work.items)) + work.items * CODE_BYTES,
        "mine_reads_bytes": work.items * CODE_BYTES + work.id_passes * work.items * work.id_bytes,
        "train_reads_bytes": work.vectors + work.items * CODE_BYTES,
        "evaluate_reads_bytes": min(work.vectors, 2 * DEPTH * SAMPLE * GROUP_BYTES),
    }


def puts(work: Work) -> dict[str, int]:
    """PUT requests of each stage."""
    return {"search_puts": work.waves * work.blocks, "mine_puts": work.blocks}


def flop(work: Work, *, weights: int, tokens: int) -> dict[str, int]:
    """Floating-point operations, and the bytes of vectors that processors read to score exactly.

    Args:
        weights: of the encoder, without its token table. tokens: of a text.
    """
    proposed = work.num_hits + work.num_hits // 4 if work.gpu else 2 * work.num_hits
    return {
        "search_flop": 2 * work.items * work.queries * work.dimension,
        # every shard scores what its engine proposed once more in float64, from its own memory
        "scored_again_bytes": work.actors * work.waves * work.queries * proposed * work.dimension * 4,
        "embed_flop": 2 * weights * tokens * (work.items + work.queries),
    }


def moved(work: Work) -> dict[str, int]:
    """Bytes between nodes while a round is searched, and how many blocks are under way."""
    hits = work.queries * work.num_hits * HIT_BYTES
    writers = work.actors
    in_flight = blocks_in_flight(work.actors, writers, work.block, work.num_hits)
    return {
        "hits_between_nodes_bytes": hits * (work.nodes - 1),
        "hits_between_nodes_unmerged_bytes": hits * (work.actors - work.actors_per_node),
        "blocks_in_flight": in_flight,
        "hits_in_flight_bytes": in_flight * work.actors * work.block * work.num_hits * HIT_BYTES,
        "query_vectors_to_nodes_bytes": work.waves * work.query_vectors * work.nodes,
    }


def usd(work: Work) -> dict[str, float]:
    """Money for requests."""
    return {"requests_usd": sum(gets(work).values()) * GET_USD + sum(puts(work).values()) * PUT_USD}


CASE = Work(
    items=100_000_000,
    queries=10_000_000,
    labels=30_000_000,
    dimension=384,
    num_hits=100,
    num_negatives=32,
    block=4096,
    part_rows=65_536,
    nodes=8,
    actors_per_node=8,
    node_memory=1024 * 2**30,
    gpu=True,
    cpus=8 * 128,
)
"""A hundred million items on eight nodes of eight GPUs, with 128 CPUs and 1 TiB for tasks on each."""
WEIGHTS, TOKENS = 10_700_000, 128
"""Of all-MiniLM-L6-v2 without its token table, and of a short text."""


def tables(work: Work = CASE) -> Iterator[str]:
    """The tables of docs/scale.md, line by line."""
    sections: dict[str, Mapping[str, float]] = {
        "In storage": stored(work),
        "Requests": gets(work) | puts(work) | usd(work),
        "Read of the items": read(work),
        "Arithmetic": flop(work, weights=WEIGHTS, tokens=TOKENS),
        "Between nodes, while a round is searched": moved(work),
        "Memory": {"items_of_shard": work.shard, "waves": work.waves} | memory(work),
    }
    for title, figures in sections.items():
        yield f"| {title} | |"
        yield "|---|---:|"
        for name, value in figures.items():
            what = name.removesuffix("_bytes").removesuffix("_flop").removesuffix("_usd").replace("_", " ")
            yield f"| {what} | {_shown(name, value)} |"
        yield ""


def _shown(name: str, value: float) -> str:
    if name.endswith("_usd"):
        return f"{value:,.2f} USD"
    if name.endswith("_flop"):
        return f"{value:.3g} FLOP"
    if not name.endswith("_bytes"):
        return f"{value:,}"
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if value >= size:
            return f"{value / size:,.1f} {unit}"
    return f"{value:,} B"


if __name__ == "__main__":
    sys.stdout.write("\n".join(tables()))
