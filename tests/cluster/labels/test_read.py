"""Labels and codes read for all processes of a node: what they say is what the tables say, in fewer bytes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.labels import labels as module
from cluster.labels.labels import Labels, short_codes
from cluster.labels.read import read_labels
from cluster.storage.store import Store
from cluster.tables.tables import Part, part_name, write_part

CODES = st.lists(st.integers(-1, 5) | st.integers(2**40, 2**40 + 130) | st.integers(2**62, 2**62 + 3), max_size=200)


@pytest.mark.parametrize("scanned", [1, 2**20])  # in 64 ranges of codes, and in one
@given(codes=CODES)
def test_short_codes_are_equal_where_the_long_ones_are(scanned: int, codes: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SCANNED", scanned)
        short = short_codes(np.array(codes, np.int64))
    assert short.dtype == np.int32
    assert ((short == -1) == (np.array(codes, np.int64) < 0)).all()
    known: dict[int, int] = {}
    for code, number in zip(codes, short.tolist(), strict=True):
        assert known.setdefault(code, number) == number
    assert len(set(known.values())) == len(known), "different codes have different numbers"


def write(store: Store, name: str, table: pa.Table, rows: int) -> list[Part]:
    return [
        write_part(store, f"{name}/{part_name(number)}", table.slice(start, rows), first_row=start)
        for number, start in enumerate(range(0, table.num_rows, rows))
    ]


@pytest.mark.parametrize("grouped", [True, False])
def test_labels_read_part_by_part_are_those_of_the_tables(tmp_path: Path, grouped: bool) -> None:
    store, rng = Store(str(tmp_path)), np.random.default_rng(3)
    items, queries = 300, 40
    groups = rng.integers(-1, 60, items) if grouped else np.full(items, -1)
    codes = pa.table({"text_code": rng.integers(0, 200, items) * 2**40, "group_code": groups})
    pairs = sorted({(int(query), int(item)) for query, item in rng.integers(0, [queries, items], (120, 2))})
    labels = pa.table(
        {
            "query_row": [query for query, _ in pairs],
            "item_row": [item for _, item in pairs],
            "score": rng.choice([-1.0, 0.0, 0.5, 3.0], len(pairs)),
        }
    )
    want = Labels.from_tables(labels, codes, queries)
    got = read_labels(store, write(store, "labels", labels, 17), write(store, "codes", codes, 41), queries)
    rows = np.arange(queries)
    candidates = rng.integers(-1, items, (queries, 50))
    for name in ("positives", "no_negatives", "judged_irrelevant"):
        for mine, theirs in zip(getattr(got, name)(rows), getattr(want, name)(rows), strict=True):
            assert np.array_equal(mine, theirs)
    for name in ("positive_mask", "duplicate_mask", "copy_mask"):
        assert np.array_equal(getattr(got, name)(rows, candidates), getattr(want, name)(rows, candidates))
    assert (got.group_codes.nbytes + got.text_codes.nbytes) / items == 8
    assert got.item_rows.nbytes + got.scores.nbytes == 9 * len(pairs)


def test_groups_are_those_of_relevant_items_with_all_their_members(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    codes = pa.table({"text_code": range(8), "group_code": [7, -1, 9, 7, 9, 4, 7, 4]})
    labels = pa.table({"query_row": [0, 0, 1], "item_row": [3, 5, 1], "score": [1, 0, 1]})  # 5 is judged irrelevant
    known = read_labels(store, write(store, "labels", labels, 2), write(store, "codes", codes, 3), 2)
    found, offsets, members = known.groups
    assert [members[low:high].tolist() for low, high in pairwise(offsets)] == [[0, 3, 6]]
    assert found.tolist() == [known.group_codes[0]]
