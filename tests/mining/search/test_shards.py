"""Cutting a corpus and its queries: every row once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import ConfigError
from mining.search.shards import ShardRange, plan_blocks, plan_shards, waves


def test_shards_worked_by_hand() -> None:
    got = plan_shards(10, shards=3, actors=1, shard_rows=100)
    assert got == [ShardRange(0, 3), ShardRange(3, 6), ShardRange(6, 10)]
    assert len(plan_shards(10, shards=None, actors=4, shard_rows=100)) == 4
    assert len(plan_shards(10, shards=None, actors=4, shard_rows=2)) == 8, "every actor has two, none waits for another"
    assert len(plan_shards(10, shards=None, actors=3, shard_rows=1)) == 10
    assert plan_shards(2, shards=None, actors=4, shard_rows=100) == [ShardRange(0, 1), ShardRange(1, 2)]


def test_more_shards_than_items_are_refused_with_the_way_out() -> None:
    with pytest.raises(ConfigError, match=r"cluster\.shards = 3 cannot cut a corpus of 2 items; set it to 2 or less"):
        plan_shards(2, shards=3, actors=1, shard_rows=100)


@given(st.integers(1, 200), st.none() | st.integers(1, 20), st.integers(1, 10), st.integers(1, 50))
def test_shards_hold_every_row_once_and_differ_by_one_row(items: int, shards: int | None, actors: int, shard_rows: int) -> None:
    if shards is not None:
        shards = min(shards, items)
    got = plan_shards(items, shards=shards, actors=actors, shard_rows=shard_rows)
    assert [row for shard in got for row in range(shard.start, shard.stop)] == list(range(items))
    sizes = {shard.stop - shard.start for shard in got}
    assert max(sizes) - min(sizes) <= 1
    if shards is None:
        assert max(sizes) <= shard_rows
    assert [shard for wave in waves(got, actors) for shard in wave] == got
    assert max(len(wave) for wave in waves(got, actors)) <= actors


@given(st.sets(st.integers(0, 100)), st.integers(1, 20))
def test_blocks_hold_every_query_once_in_order(rows: set[int], block_size: int) -> None:
    query_rows = np.array(sorted(rows), np.int64)
    blocks = plan_blocks(query_rows, block_size)
    assert [int(row) for block in blocks for row in block.query_rows] == sorted(rows)
    assert [block.index for block in blocks] == list(range(len(blocks)))
    assert all(1 <= len(block.query_rows) <= block_size for block in blocks)
