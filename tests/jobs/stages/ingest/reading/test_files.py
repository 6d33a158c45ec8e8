"""Reading tables from Parquet, JSONL and TSV: every row arrives, with the number it has in its file."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import ClusterError, ConfigError, DataError
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from jobs.stages.ingest.reading import beir_tsv, csv_table, jsonl
from jobs.stages.ingest.reading import files as sources
from jobs.stages.ingest.reading.files import count_rows, fingerprint, read_chunks, source_files

STORAGE = StorageSettings()
ROWS = [{"id": "a", "n": 1}, {"id": "b", "n": 2}, {"id": "c", "n": 3}]


def lines(*rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def read(path: Path) -> list[dict[str, Any]]:
    return [row for chunk in read_chunks(str(path), STORAGE) for row in chunk.table.to_pylist()]


def numbered(path: Path) -> dict[int, Any]:
    """Row number -> id."""
    return {
        chunk.first_row + place: row
        for chunk in read_chunks(str(path), STORAGE)
        for place, row in enumerate(chunk.table.column(0).to_pylist())
    }


@pytest.mark.parametrize("name", ["t.parquet", "t.pq", "t.jsonl", "t.json", "t.jsonl.gz"])
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.startswith("t.p"):
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        path.write_bytes(gzip.compress(lines(*ROWS)) if name.endswith("gz") else lines(*ROWS))
    assert read(path) == ROWS
    assert count_rows(str(path), STORAGE) == 3


def test_a_folder_is_its_data_files_in_order_of_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "corpus.parquet"  # as Spark and Ray write a table
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(ROWS[1:]), folder / "part-1.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS[:1]), folder / "part-0.parquet")
    for name in ("_SUCCESS", "_metadata.parquet", ".hidden.parquet", "readme.txt"):
        (folder / name).write_bytes(b"")
    assert source_files(str(folder), STORAGE)[1] == ["part-0.parquet", "part-1.parquet"]
    assert read(folder) == ROWS
    assert count_rows(str(folder), STORAGE) == 3
    assert fingerprint(str(folder), STORAGE).keys() == {"part-0.parquet", "part-1.parquet"}


def test_the_fingerprint_tells_contents_apart(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(lines(*ROWS))
    before = fingerprint(str(path), STORAGE)
    path.write_bytes(lines(*ROWS[:2], {"id": "c", "n": 4}))
    assert fingerprint(str(path), STORAGE) != before


@pytest.mark.parametrize("chunk_rows", [1, 2, 3, 100])
def test_rows_have_the_numbers_of_their_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_rows: int) -> None:
    monkeypatch.setattr(sources, "CHUNK_ROWS", chunk_rows)
    for module in (beir_tsv, csv_table, jsonl):
        monkeypatch.setattr(module, "CHUNK_ROWS", chunk_rows)
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"\n" + lines(*ROWS[:2]) + b" \r\n\n" + lines(ROWS[2]).strip())
    assert numbered(path) == {2: "a", 3: "b", 6: "c"}
    table = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), table)
    assert numbered(table) == {1: "a", 2: "b", 3: "c"}
    labels = tmp_path / "t.tsv"
    labels.write_bytes(b"query-id\tcorpus-id\tscore\na\ti\t1\nb\ti\t1\n\nc\ti\t1\n")
    assert numbered(labels) == {2: "a", 3: "b", 5: "c"}
    trec = tmp_path / "t.trec"
    trec.write_bytes(b"a 0 i 1\nb 0 i 1\n\nc 0 i 1\n")
    assert numbered(trec) == {1: "a", 2: "b", 4: "c"}
    cells = tmp_path / "t.csv"  # numbered as a spreadsheet shows them: the header is row 1, and a cell may hold line breaks
    cells.write_bytes(b'id,text\na,"two\nlines"\nb,x\n\nc,y\n')
    assert numbered(cells) == {2: "a", 3: "b", 5: "c"}


def test_a_missing_field_is_null(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(lines({"id": "a"}, {"id": "b", "genres": ["x"]}, {"id": "c", "genres": []}))
    assert [row["genres"] for row in read(path)] == [None, ["x"], []]


def test_empty_objects_are_no_values(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"  # every BEIR corpus says "metadata": {}
    path.write_bytes(lines({"id": "a", "metadata": {}, "deep": [{}]}, {"id": "b", "metadata": {}, "deep": None}))
    assert read(path) == [{"id": "a", "metadata": None, "deep": "[{}]"}, {"id": "b", "metadata": None, "deep": None}]


def test_a_byte_order_mark_and_windows_line_ends_are_read_over(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + lines(*ROWS).replace(b"\n", b"\r\n"))
    assert read(path) == ROWS
    labels = tmp_path / "t.tsv"
    labels.write_bytes(b"\xef\xbb\xbfquery-id\tcorpus-id\tscore\r\nq\ti\t1\r\n")
    assert read(labels) == [{"query_id": "q", "item_id": "i", "score": "1"}]


def test_categories_are_read_as_their_texts(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"  # as pandas writes a categorical column
    pq.write_table(
        pa.table({"id": pa.array(["a", "b", "a"]).dictionary_encode(), "view": pa.array(["a"] * 3, pa.string_view())}), path
    )
    assert set(next(read_chunks(str(path), STORAGE)).table.schema.types) == {pa.string()}


@pytest.mark.parametrize("header", [b"", b"query-id\tcorpus-id\tscore\n", b"qid\tdocid\tRelevance\n"])
def test_tsv_with_and_without_a_header(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "train.tsv"
    path.write_bytes(header + b'q 1\t"i1\t2\n\nq2\ti2\t0\n')
    first = 2 if header else 1
    assert numbered(path) == {first: "q 1", first + 2: "q2"}
    assert read(path) == [{"query_id": "q 1", "item_id": '"i1', "score": "2"}, {"query_id": "q2", "item_id": "i2", "score": "0"}]


@pytest.mark.parametrize(
    ("line", "found"), [(b"q\ti\n", r"\['q', 'i'\]"), (b"q\t0\ti\t1\n", r"\['q', '0', 'i', '1'\]"), (b"\xff\ti\t1\n", "UTF-8")]
)
def test_a_label_line_of_another_shape_is_named(tmp_path: Path, line: bytes, found: str) -> None:
    path = tmp_path / "train.tsv"
    path.write_bytes(b"q0\ti0\t1\n" + line)
    with pytest.raises(DataError, match=rf"train\.tsv, line 2: .*{found}"):
        read(path)


@pytest.mark.parametrize("header", [b"corpus-id\tquery-id\tscore\n", b"docid\tqid\trel\n", b'"item_id"\t"query_id"\t"label"\n'])
def test_a_header_in_another_order_is_refused_not_read_as_labels(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "train.tsv"
    path.write_bytes(header + b"1\t2\t1\n")
    with pytest.raises(DataError, match=r"line 1: .*in this order.*swap the first two"):
        read(path)


def test_a_byte_order_mark_further_down_belongs_to_the_id(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_bytes("q\ti\t1\n\ufeffq\ti\t1\n".encode())
    assert [row["query_id"] for row in read(path)] == ["q", "\ufeffq"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"id": "a", "text": "x", "text": "y"}', "line 2: .*each key once, found 'text' more than once"),
        (b'{"id": "a", "meta": {"n": 1, "m": 2, "n": 1}}', "line 2: .*found 'n' more than once"),
        (b'{"id": "\\ud800"}', r"line 2: .*half of a surrogate pair \(\\ud800\)"),
        (b'{"id": "a", "\\uDFFF": 1}', r"line 2: .*half of a surrogate pair \(\\udfff\)"),
        (b'{"id": "a", "meta": {"x": ["\\ud83d"]}}', "line 2: .*half of a surrogate pair"),
        (b'{"id": "a", "meta": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "line 2: .*nested at most 20 levels"),
        (b'{"id": "a", "meta": ' + b"[" * 40 + b"]" * 40 + b"}", "nested at most 20 levels deep, found 40 levels in 'meta'"),
        (b'{"id": "a", "meta": ' + b'{"x": ' * 60 + b"1" + b"}" * 61, "found 60 levels in 'meta'"),
        (b'{"id": "a", "n": ' + b"9" * 5_000 + b"}", "line 2: .*one JSON object"),
    ],
)
def test_json_that_parses_and_says_nothing_usable_is_named(tmp_path: Path, line: bytes, words: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"id": "good"}\n' + line + b"\n")
    with pytest.raises(DataError, match=words):
        read(path)


def test_a_whole_surrogate_pair_is_one_character(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"id": "\\ud83d\\ude00", "\\ud83d\\ude00": 1}\n')
    assert read(path) == [{"id": "😀", "😀": 1}]


def test_parquet_that_is_nested_too_deeply_to_be_read_back_is_refused(tmp_path: Path) -> None:
    kind = pa.int64()
    for _ in range(30):
        kind = pa.list_(kind)
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": ["a"], "deep": pa.array([None], kind)}), path)
    with pytest.raises(DataError, match="found 30 levels in 'deep'"):
        read(path)


def test_an_empty_folder_is_not_called_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "corpus.parquet").mkdir()
    with pytest.raises(DataError, match=r"a folder of them, at .*corpus\.parquet; found an empty folder"):
        source_files(str(tmp_path / "corpus.parquet"), STORAGE)
    (tmp_path / "corpus.parquet/_SUCCESS").touch()
    with pytest.raises(DataError, match="found _SUCCESS"):
        source_files(str(tmp_path / "corpus.parquet"), STORAGE)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(DataError, match="neither file nor folder"):
        source_files(str(tmp_path / "pipe.jsonl"), STORAGE)
    (tmp_path / "a.jsonl").symlink_to("b.jsonl")
    (tmp_path / "b.jsonl").symlink_to("a.jsonl")
    with pytest.raises(ConfigError, match=r"a\.jsonl.*symbolic links.*fix the address, or the link"):
        source_files(str(tmp_path / "a.jsonl"), STORAGE)
    with pytest.raises(ConfigError, match=r"name too long.*fix the address"):
        source_files(str(tmp_path / ("x" * 300 + ".jsonl")), STORAGE)
    with pytest.raises(ConfigError, match="without NUL characters"):
        source_files(f"{tmp_path}/a\0/corpus.jsonl", STORAGE)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"n": 1}, {"n": 2.5}, {"n": "x"}], "line 3: .*'n', found 'x' where others are like 1"),
        ([{"n": ["a"]}, {"n": "a"}], r"line 2: .*'n', found 'a' where others are like \['a'\]"),
        ([{"n": None}, {"n": 2**70}], "line 2: .*'n'.*more than 64 bits.*write .* as text"),
        ([{"n": 1}, {"n": True}], "line 2: .*'n', found True where others are like 1"),
        ([{"n": 0.5}, {"n": False}], "line 2: .*'n', found False where others are like 0.5"),
        ([{"n": True}, {"n": 1}], "line 2: .*'n', found 1 where others are like True"),
        ([{"n": {"a": 1}}, {"n": {"a": "x"}}], "lines 1 to 2: .*'n'"),
    ],
)
def test_a_field_of_two_types_is_named(tmp_path: Path, rows: list[Any], words: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(lines(*rows))
    with pytest.raises(DataError, match=words):
        read(path)


@pytest.mark.parametrize("name", ["t.parquet", "t.jsonl", "t.tsv"])
def test_storage_that_fails_while_reading_is_not_the_data_s_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    class Broken:
        """A stream whose connection is lost."""

        closed = False

        def __getattr__(self, _: str) -> Any:
            raise OSError(5, "connection lost")

        def __enter__(self) -> Broken:
            return self

        def __exit__(self, *_: object) -> None:
            return None

    (tmp_path / name).write_bytes(b"x")
    monkeypatch.setattr(Store, "open", lambda self, path: Broken())
    with pytest.raises(ClusterError, match=rf"{name}.*connection lost.*resumes"):
        read(tmp_path / name)


def test_a_file_that_is_gone_when_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "source_files", lambda url, storage: (Store(str(tmp_path)), ["gone.parquet"]))
    with pytest.raises(DataError, match=r"gone\.parquet: there is no such object"):
        read(tmp_path / "gone.parquet")


def test_addresses_of_other_kinds_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected a local folder or s3://"):
        source_files("gs://bucket/corpus.parquet", STORAGE)
    with pytest.raises(ConfigError, match="must not hold keys"):
        source_files("s3://KEY:hush@bucket/corpus.parquet", STORAGE)


# texts of Parquet that are not UTF-8

BAD = pa.array([b"a", b"caf\xe9", b"c"]).view(pa.string())


@pytest.mark.parametrize(
    "column",
    [
        BAD,
        BAD.cast(pa.large_binary()).view(pa.large_string()),
        pa.array([b"a", b"caf\xe9", b"c"], pa.binary_view()).view(pa.string_view()),
        pa.ListArray.from_arrays([0, 1, 2, 3], BAD),
        pa.StructArray.from_arrays([BAD], ["author"]),
        pa.MapArray.from_arrays([0, 1, 2, 3], pa.array(["k"] * 3), BAD),
    ],
    ids=lambda column: str(column.type),
)
@pytest.mark.parametrize("before", [0, 1, 6])
def test_a_text_that_is_not_utf_8_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: pa.Array, before: int
) -> None:
    monkeypatch.setattr(sources, "CHUNK_ROWS", 4)
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"n": range(before + 3), "c": pa.concat_arrays([*[column[:1]] * before, column])}), path)
    with pytest.raises(DataError, match=rf"t\.parquet, row {before + 2}: expected UTF-8 texts in the column 'c'.*again.*UTF-8"):
        read(path)


def test_the_bytes_are_shown_where_the_column_is_a_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"c": BAD}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="found other bytes 'caf\ufffd'"):
        read(tmp_path / "t.parquet")


def test_categories_that_are_not_utf_8_are_named(tmp_path: Path) -> None:
    categories = pa.DictionaryArray.from_arrays([0, 1, 2], BAD)
    pq.write_table(pa.table({"n": ["x"] * 3, "c": categories}), tmp_path / "t.parquet")
    with pytest.raises(
        DataError, match=r"t\.parquet: expected UTF-8 texts in the column 'c', found other bytes in its categories"
    ):
        read(tmp_path / "t.parquet")


def test_a_column_name_that_is_not_utf_8_is_the_file_s_fault(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"zzzz": ["a"]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"zzzz", b"zz\xe9z"))
    with pytest.raises(DataError, match=r"t\.parquet is not a readable Parquet file .*utf-8"):
        read(path)


def test_other_texts_of_a_parquet_file_are_read_as_they_are(tmp_path: Path) -> None:
    rows = [{"s": "é", "l": ["ü", None], "v": [1.0]}, {"s": None, "l": None, "v": None}, {"s": "", "l": [], "v": [2.0]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet") == rows


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", b'id,text,year\r\n007,"a, ""b""",\r\n8,c,1990\r\n'),
        ("t.csv", b'\xef\xbb\xbfid;text;year\n007;"a, ""b""";\n8;c;1990\n'),
        ("t.csv", b',id,text,year\n0,007,"a, ""b""",\n1,8,c,1990\n'),
        ("t.csv", b'id\ttext\tyear\n007\t"a, ""b"""\t\n8\tc\t1990\n'),
        ("t.tsv", b'id\ttext\tyear\n007\ta, "b"\t\n8\tc\t1990\n'),
    ],
)
def test_the_cells_of_csv_and_tsv_are_texts_as_written(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    want = [{"id": "007", "text": 'a, "b"', "year": None}, {"id": "8", "text": "c", "year": "1990"}]
    assert read(path) == want
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress(content))
    assert read(packed) == want
    assert count_rows(str(packed), STORAGE) == 2


def test_a_quotation_mark_in_a_tsv_is_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"  # read as a quoted cell, it would swallow the lines up to the next one
    path.write_bytes(b'id\ttext\na\t"24 inch\nb\tx\nc\t12"\n')
    assert read(path) == [{"id": "a", "text": '"24 inch'}, {"id": "b", "text": "x"}, {"id": "c", "text": '12"'}]


def test_a_cell_may_be_as_long_as_a_document(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"id,text\na," + b"x" * 300_000 + b"\n")
    assert [len(row["text"]) for row in read(path)] == [300_000]


@pytest.mark.parametrize("name", ["qrels.txt", "qrels.tsv", "dl.qrels"])
@pytest.mark.parametrize("parting", [b" ", b"\t", b"  "])
def test_labels_as_trec_writes_them(tmp_path: Path, name: str, parting: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(parting.join([b"q1", b"0", b"i1", b"2"]) + b"\n" + parting.join([b"q1", b"Q0", b"i2", b"-1"]) + b"\n")
    assert read(path) == [{"query_id": "q1", "item_id": "i1", "score": "2"}, {"query_id": "q1", "item_id": "i2", "score": "-1"}]


def test_a_tsv_of_two_columns_without_a_header_is_id_and_text(tmp_path: Path) -> None:
    path = tmp_path / "collection.tsv"  # MS MARCO
    path.write_bytes(b"0\tthe presence of\n1\t42\n")
    assert read(path) == [{"id": "0", "text": "the presence of"}, {"id": "1", "text": "42"}]
    assert numbered(path) == {1: "0", 2: "1"}


@pytest.mark.parametrize("name", ["t.parquet", "t.jsonl", "t.csv", "t.tsv"])
def test_the_head_of_a_table_is_no_more_than_its_first_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(sources, "HEAD_ROWS", 3)
    path, rows = tmp_path / name, [{"id": f"a{n}", "text": "x"} for n in range(9)]
    if name == "t.parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif name == "t.jsonl":
        path.write_bytes(lines(*rows))
    else:
        mark = "," if name == "t.csv" else "\t"
        path.write_text(f"id{mark}text\n" + "".join(f"{row['id']}{mark}x\n" for row in rows))
    head = sources.read_head(str(path), STORAGE)
    assert head is not None
    assert head.table.to_pylist() == rows[: 2 if name == "t.tsv" else 3]  # one line of the three is the header


def test_only_the_columns_that_are_asked_for_are_read_from_parquet(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": ["a"], "text": ["x"], "vector": [[0.5]]}), path)
    assert next(read_chunks(str(path), STORAGE, ["vector", "id", "none"])).table.column_names == ["id", "vector"]
