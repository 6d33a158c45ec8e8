"""How the corpus is cut into shards and the queries into blocks: pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from cluster.errors import ConfigError
from cluster.tables.tables import I64


@dataclass(frozen=True)
class ShardRange:
    """Corpus rows start … stop - 1."""

    start: int
    stop: int


@dataclass(frozen=True)
class QueryBlock:
    """Some queries that are searched together, ascending rows."""

    index: int
    query_rows: I64


def plan_shards(num_items: int, *, shards: int | None, actors: int, shard_rows: int) -> list[ShardRange]:
    """Cut `num_items` rows into equal shards.

    Args:
        shards: how many; None: one per actor, or, if a shard would exceed `shard_rows`, a multiple of that, so that no actor
            waits for others in the last wave.

    Raises:
        ConfigError: more shards than items.
    """
    count = shards or min(num_items, actors * -(-num_items // (actors * shard_rows)))
    if count > num_items:
        raise ConfigError(f"cluster.shards = {count} cannot cut a corpus of {num_items} items; set it to {num_items} or less")
    edges = [num_items * index // count for index in range(count + 1)]
    return [ShardRange(start, stop) for start, stop in pairwise(edges)]


def plan_blocks(query_rows: I64, block_size: int) -> list[QueryBlock]:
    """Cut ascending query rows into blocks of at most `block_size`."""
    return [
        QueryBlock(number, query_rows[start : start + block_size])
        for number, start in enumerate(range(0, len(query_rows), block_size))
    ]


def waves(shards: Sequence[ShardRange], actors: int) -> list[list[ShardRange]]:
    """Shards that are held at the same time, one per actor."""
    return [list(shards[start : start + actors]) for start in range(0, len(shards), actors)]
