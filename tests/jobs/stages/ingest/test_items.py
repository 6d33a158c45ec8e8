"""Items are read in slices, side by side: whatever these are, the tables are the same, and so is what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import ConfigError, DataError
from cluster.session.resources import ClusterSize
from cluster.storage.store import Store
from cluster.tables.tables import read_parts
from jobs.config.config import load_config
from jobs.stages.ingest import items
from jobs.stages.ingest.items import rows_of_a_part
from jobs.stages.ingest.lookup import item_codes
from jobs.stages.ingest.lookup.ids import bucket_numbers, by_bucket
from jobs.stages.ingest.reading import slices
from jobs.stages.ingest.reading.slices import read_slice, slice_source
from jobs.stages.stage_0_ingest import _ingest_tables


@pytest.fixture
def in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file, and every row group, is a slice; and there are many buckets and ranges of codes."""
    monkeypatch.setattr(slices, "SLICE_BYTES", 1)
    monkeypatch.setattr(items, "BUCKET_IDS", 3)
    monkeypatch.setattr(item_codes, "RANGE_CODES", 4)
    monkeypatch.setattr(item_codes, "AT_ONCE", 1)


def in_files(case: Any, rows: list[dict[str, Any]], *counts: int, parquet: bool = False) -> None:
    """The corpus as a folder of files with so many rows each."""
    start = 0
    for number, count in enumerate([*counts, len(rows) - sum(counts)]):
        some = rows[start : start + count]
        start += count
        if parquet:
            (case.folder / "corpus").mkdir(exist_ok=True)
            pq.write_table(pa.Table.from_pylist(some), case.folder / f"corpus/{number}.parquet", row_group_size=2)
        else:
            case.files[f"corpus/{number}.jsonl"] = b"".join(json.dumps(row).encode() + b"\n" for row in some)
    case.set("data.corpus", "corpus")


def tables_of(case: Any, folder: Path) -> tuple[dict[str, pa.Table], dict[str, Any]]:
    store, config = Store(str(folder)), load_config(case.write())
    outcome = _ingest_tables(config, store, "tables", config.data)
    listed = {part.path for parts in outcome.tables.values() for part in parts}
    assert all(path in listed or path.startswith(outcome.scratch) for path in store.list("tables")), "nothing else is left behind"
    for name, parts in outcome.tables.items():
        firsts = np.cumsum([0, *(part.rows for part in parts)]).tolist()
        assert [part.first_row for part in parts] == firsts[:-1], name
    return {name: read_parts(store, parts) for name, parts in outcome.tables.items()}, outcome.figures


def spoil(case: Any, vectors: bool) -> None:
    """Twins among items and queries, groups, queries that are items."""
    case.items += [{"id": f"x{number}", "title": f"Title {number % 5}", "text": "a text"} for number in range(30)]
    case.items[3]["group"] = case.items[9]["group"] = "g"
    case.queries[0]["item_id"] = "x7"
    case.queries[2] |= {"id": "x8", "text": "Title 3 a text!"}
    case.labels[2]["query_id"] = "x8"
    case.queries[4]["text"] = case.queries[5]["text"]
    if vectors:
        case.settings["encoder"] = {"kind": "adapter"}
        for number, row in enumerate([*case.items, *case.queries]):
            row["vector"] = [1.0, float(number % 7)]


@pytest.mark.parametrize("parquet", [False, True], ids=["jsonl", "parquet"])
@pytest.mark.parametrize("vectors", [False, True], ids=["texts", "vectors"])
def test_the_tables_do_not_depend_on_the_slices(
    case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, vectors: bool, parquet: bool
) -> None:
    spoil(case, vectors)
    in_files(case, case.items, 7, 1, 13, parquet=parquet)
    want, figures = tables_of(case, tmp_path / "one")
    request.getfixturevalue("in_slices")
    case.set("cluster.part_rows", 16)
    got, again = tables_of(case, tmp_path / "many")
    assert again == figures
    assert figures["equal_texts"]["items"] >= (3 if vectors else 30)
    assert got.keys() == want.keys()
    for name, table in want.items():
        assert got[name].equals(table), name
    assert want["codes"].column_names == ["text_code", "group_code", "id"]
    assert not {"text_code", "group_code"} & {*want["corpus"].column_names}


@pytest.mark.cluster
def test_tasks_write_what_one_process_writes(
    case: Any, tmp_path: Path, in_slices: None, monkeypatch: pytest.MonkeyPatch, ray_local: ClusterSize
) -> None:
    spoil(case, True)
    in_files(case, case.items, 7, 1, 13)
    got, _ = tables_of(case, tmp_path / "tasks")
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    want, _ = tables_of(case, tmp_path / "here")
    assert all(got[name].equals(table) for name, table in want.items())


def test_a_column_of_the_template_may_be_missing_in_a_later_file_and_all_parts_have_all_columns(
    case: Any, tmp_path: Path, in_slices: None
) -> None:
    case.set("data.item_text", "{title} {mood}")
    case.items[0]["mood"] = "dark"
    case.items[8]["year"] = 1.5
    in_files(case, case.items, 4, 4)
    corpus = tables_of(case, tmp_path / "run")[0]["corpus"]
    assert corpus["text"].to_pylist()[:2] == ["Title 0 dark", "Title 1"]
    assert corpus["mood"].to_pylist() == ["dark", *[None] * 11]
    assert corpus["year"].to_pylist()[8] == 1.5


FAULTS = {
    "a column that no file has before": (
        lambda rows: [row.pop("title") for row in rows[:8]],
        "{title} {mood}",
        ConfigError,
        "mood",
    ),
    "another type": (
        lambda rows: [row.update(year="x") for row in rows[8:]],
        "{title}",
        DataError,
        r"2\.jsonl.*'year'.*found string",
    ),
    "another length": (lambda rows: rows[9].update(vector=[1.0]), "{title}", DataError, r"2\.jsonl, row 2 .*of 2 num.*found 1"),
    "no vectors": (lambda rows: [row.pop("vector") for row in rows[8:]], "{title}", DataError, r"2\.jsonl, from row 1.*none"),
    "an id twice": (lambda rows: rows[9].update(id="i1"), "{title}", DataError, r"'i1' at .*0\.jsonl row 2 and .*2\.jsonl row 2"),
    "two ids twice": (lambda rows: (rows[9].update(id="i1"), rows[8].update(id="i0")), "{title}", DataError, r"2 id.*'i0' at"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_wrong_only_beside_other_slices_is_told_as_if_one_process_had_read_them(
    case: Any, tmp_path: Path, in_slices: None, name: str
) -> None:
    damage, template, error, said = FAULTS[name]
    for row in [*case.items, *case.queries]:
        row["vector"] = [1.0, 2.0]
        row.setdefault("year", 1990)
    case.set("data.item_text", template)
    damage(case.items)
    in_files(case, case.items, 4, 4)
    with pytest.raises(error, match=said):
        tables_of(case, tmp_path / "run")


def test_of_several_faults_the_first_is_told(case: Any, tmp_path: Path, in_slices: None) -> None:
    case.items[11]["id"] = case.items[5]["id"] = ""
    in_files(case, case.items, 4, 4)
    with pytest.raises(DataError, match=r"1\.jsonl, row 2: column 'id' is empty"):
        tables_of(case, tmp_path / "run")


def test_unknown_items_get_their_hint_from_any_slice(case: Any, tmp_path: Path, in_slices: None) -> None:
    case.labels[3]["item_id"] = "I11"
    in_files(case, case.items, 4, 4)
    with pytest.raises(DataError, match=r"row 4: the label names item 'I11'.*There is 'i11'.*upper and lower case"):
        tables_of(case, tmp_path / "run")


# slices and parts


@pytest.mark.parametrize("most", [1, 500, 3_000, 10**9])
def test_slices_hold_every_row_once_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(slices, "SLICE_BYTES", most)
    for number, count in enumerate((10, 0, 25)):
        table = pa.table({"id": pa.array([f"{number}-{row}" for row in range(count)], pa.string())})
        pq.write_table(table, tmp_path / f"{number}.parquet", row_group_size=7)
    (tmp_path / "9.jsonl").write_text('{"id": "a"}\n\n{"id": "b"}\n')
    store = Store(str(tmp_path))
    found = slice_source(str(tmp_path), store.settings)
    chunks = [chunk for part in found.slices for chunk in read_slice(part)]
    want = [*(f"0-{row}" for row in range(10)), *(f"2-{row}" for row in range(25)), "a", "b"]
    assert [name for chunk in chunks for name in chunk.table["id"].to_pylist()] == want
    places = [(Path(chunk.file).name, chunk.first_row + row) for chunk in chunks for row in range(chunk.table.num_rows)]
    texts = [("9.jsonl", 1), ("9.jsonl", 3)]
    assert places == [*(("0.parquet", row) for row in range(1, 11)), *(("2.parquet", row) for row in range(1, 26)), *texts]
    assert len(found.slices) == {1: 8, 500: len(found.slices), 3_000: len(found.slices), 10**9: 1}[most]


def test_parts_are_sized_by_bytes() -> None:
    assert rows_of_a_part(5_000, 100, 65_536) == 10_485, "a small corpus is one part"
    assert rows_of_a_part(10_000_000_000, 1_000, 65_536) == 65_536
    assert rows_of_a_part(150_000_000_000, 4_000, 65_536) == 16_777, "64 MiB"
    hundred_million = 100_000_000 / rows_of_a_part(100_000_000 * 1_700, 1_700, 65_536)
    assert 2_000 < hundred_million < 4_000
    assert 40 < 100_000 / rows_of_a_part(100_000 * 700, 700, 65_536) < 80, "work for several actors"


# ids


@given(st.lists(st.text(max_size=30), max_size=40), st.integers(1, 9))
def test_equal_ids_are_in_one_bucket_wherever_they_lie_in_memory(names: list[str], buckets: int) -> None:
    whole = pa.array(["shifted", *names, *names], pa.large_string())
    numbers = bucket_numbers(whole.slice(1), buckets)
    assert numbers.tolist()[: len(names)] == numbers.tolist()[len(names) :]
    assert bucket_numbers(pa.array(names, pa.large_string()), buckets).tolist() == numbers.tolist()[: len(names)]
    assert ((numbers >= 0) & (numbers < buckets)).all()
    order, stops = by_bucket(whole.slice(1), buckets)
    assert sorted(order.tolist()) == list(range(2 * len(names)))
    assert stops[-1] == 2 * len(names)


@pytest.mark.parametrize("name", ["item-{}", "{:08d}", "https://shop.example/items/{}/index.html", "{:032x}"])
def test_usual_ids_fill_all_buckets_alike(name: str) -> None:
    ids = pa.array([name.format(number) for number in range(20_000)], pa.large_string())
    counts = np.bincount(bucket_numbers(ids, 16), minlength=16)
    assert counts.min() > 900
    assert counts.max() < 1_700
