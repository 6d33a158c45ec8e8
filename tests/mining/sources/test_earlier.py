"""Since which round each negative has been one: worked by hand, against dictionaries, and from parts cut elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cluster.storage.store import Store
from cluster.tables.tables import part_name, write_part
from mining.sources.earlier import Earlier, first_rounds, load_earlier


def test_new_pairs_get_this_round_and_known_ones_keep_theirs() -> None:
    earlier = Earlier(np.array([[5, 7, -1], [-1, -1, -1]]), np.array([[1, 2, 0], [0, 0, 0]]))
    got = first_rounds(np.array([[7, 9, 5, -1], [5, -1, -1, -1]]), earlier, 3)
    assert got[0, :3].tolist() == [2, 3, 1]
    assert got[1, 0] == 3
    assert first_rounds(np.array([[7, 9]]), None, 1).tolist() == [[1, 1]]


@pytest.mark.parametrize(("size", "block"), [(10, 10), (3, 4), (4, 3), (1, 10), (10, 1)])
def test_rounds_equal_a_dictionary_for_every_cut(tmp_path: Path, size: int, block: int) -> None:
    store, generator = Store(str(tmp_path)), np.random.default_rng(4)
    query_rows = np.arange(10) * 2
    rows = [generator.permutation(12)[: generator.integers(0, 6)].tolist() for _ in query_rows]
    rounds = [generator.integers(1, 5, len(some)).tolist() for some in rows]
    table = pa.table(
        {
            "query_row": query_rows,
            "negative_rows": pa.array(rows, pa.list_(pa.int64())),
            "negatives": pa.array(
                [
                    [{"item_id": f"i{row}", "round": number} for row, number in zip(*pair, strict=True)]
                    for pair in zip(rows, rounds, strict=True)
                ],
                pa.list_(pa.struct([("item_id", pa.string()), ("round", pa.int32())])),
            ),
        }
    )
    parts = [
        write_part(store, f"negatives/{part_name(number)}", table.slice(start, size))
        for number, start in enumerate(range(0, 10, size))
    ]
    chosen = generator.integers(-1, 12, (10, 8))
    for start in range(0, 10, block):
        earlier = load_earlier(store, parts, start, query_rows[start : start + block])
        got = first_rounds(chosen[start : start + block], earlier, 9)
        want = [
            [dict(zip(rows[query], rounds[query], strict=True)).get(row, 9) for row in chosen[query].tolist()]
            for query in range(start, min(start + block, 10))
        ]
        assert got.tolist() == want
