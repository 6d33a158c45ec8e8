"""Mistakes in corpus, queries and labels: one paragraph that names file, row, id or value, and exit code 2."""

from __future__ import annotations

import gzip
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Spoil = Callable[[Any], Any]


def setting(key: str, value: Any) -> Spoil:
    """A setting with this value."""
    return lambda case: case.set(key, value)


def row(table: str, number: int, **values: Any) -> Spoil:
    """Other values in one row of "items", "queries" or "labels"."""
    return lambda case: getattr(case, table)[number].update(values)


def every(table: str, **values: Any) -> Spoil:
    """Other values in every row; None takes the column out."""

    def spoil(case: Any) -> None:
        for entry in getattr(case, table):
            for name, value in values.items():
                entry.pop(name, None) if value is None else entry.update({name: value})

    return spoil


def both(*spoils: Spoil) -> Spoil:
    """One after another."""
    return lambda case: [spoil(case) for spoil in spoils] and None


def file(name: str, content: bytes, key: str = "data.corpus") -> Spoil:
    """A file of this content as the corpus (or another setting)."""
    return lambda case: (case.files.update({name: content}), case.set(key, name.partition("/")[0]))[0]


def parquet(table: dict[str, Any]) -> bytes:
    """A table as the bytes of a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(pa.table(table), sink)
    return sink.getvalue()


def vectors(size: int, tables: tuple[str, ...] = ("items", "queries")) -> Spoil:
    """A vector in every row."""
    return both(*(every(table, vector=[0.5] * size) for table in tables))


def beir(case: Any, *splits: str) -> None:
    """The data as a BEIR folder."""
    case.settings["data"] = {"folder": "beir"}
    case.files["beir/corpus.jsonl"] = b"".join(json.dumps(entry).encode() + b"\n" for entry in case.items)
    case.files["beir/queries.jsonl"] = b"".join(
        json.dumps({"_id": entry["id"], "text": entry["text"]}).encode() + b"\n" for entry in case.queries
    )
    for split in splits:
        case.files[f"beir/qrels/{split}.tsv"] = b"query-id\tcorpus-id\tscore\n" + b"".join(
            f"q{n}\ti{n}\t1\n".encode() for n in (range(8) if split == "train" else range(8, 10))
        )


def beir_with(name: str, content: bytes) -> Spoil:
    """A BEIR folder with another content of one file."""
    return lambda case: (beir(case, "train", "dev"), case.files.update({f"beir/{name}": content}))[1]


GOOD = parquet({"id": [f"i{n}" for n in range(12)], "text": ["text"] * 12})
LINE = b'{"id": "i0", "text": "x"}\n'

MISTAKES: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    # files
    "missing corpus file": (setting("data.corpus", "nowhere.parquet"), ("no file", "nowhere.parquet", "[data]")),
    "missing folder": (setting("data.corpus", "nowhere"), ("a folder of them", "nowhere", "found nothing")),
    "file of another kind": (file("corpus.csv", b"id,text\n"), ("corpus.csv", ".jsonl", "another kind", "convert")),
    "folder without data files": (file("there/notes.txt", b"x"), ("found notes.txt", "a folder of them")),
    "BEIR folder without training labels": (lambda case: beir(case, "dev"), ("no file", "qrels/train.tsv")),
    "empty corpus": (file("c.jsonl", b"\n"), ("at least one row", "items", "c.jsonl")),
    "empty Parquet table": (file("c.parquet", parquet({"id": pa.array([], pa.string())})), ("at least one row", "items")),
    "no labels": (file("l.jsonl", b"", "data.qrels"), ("at least one label",)),
    "not a Parquet file": (file("c.parquet", b"id,text\n1,x\n"), ("c.parquet", "not a readable Parquet file")),
    "Parquet file cut off": (file("c.parquet", GOOD[: len(GOOD) // 2]), ("c.parquet", "not a readable Parquet file")),
    "Parquet file damaged inside": (file("c.parquet", GOOD[:20] + b"\0" * 60 + GOOD[80:]), ("c.parquet", "write it again")),
    "column twice": (file("c.parquet", parquet({"id": ["a"], "x": ["a"]}).replace(b"\x02id", b"\x01x")), ()),
    "JSONL with a broken line": (file("c.jsonl", LINE + b'{"id": "i1", "te\n'), ("c.jsonl, line 2", '{"id": "i1", "te')),
    "JSONL with a list": (file("c.jsonl", LINE + b'\n["i1"]\n'), ("c.jsonl, line 3", "found list", "i1")),
    "JSONL in Latin-1": (file("c.jsonl", LINE + b'{"id": "i1", "text": "caf\xe9"}\n'), ("line 2", "UTF-8", "caf")),
    "JSONL field of two types": (file("c.jsonl", LINE + b'{"id": "i1", "text": 5}\n'), ("line 2", "'text'", "found 5", "'x'")),
    "files of a folder with two types": (
        both(
            file("c/1.jsonl", LINE[:-2] + b', "y": 1}\n'), file("c/2.jsonl", (LINE[:-2] + b', "y": "?"}\n').replace(b"i0", b"i1"))
        ),
        ("2.jsonl", "int64 in the column 'y'", "found string"),
    ),
    "gzip cut off": (file("c.jsonl.gz", gzip.compress(LINE * 50)[:40]), ("c.jsonl.gz", "not a readable gzip file")),
    "not gzip": (file("c.jsonl.gz", LINE), ("c.jsonl.gz", "not a readable gzip file")),
    "TSV with spaces": (beir_with("qrels/train.tsv", b"q0 i0 1\n"), ("train.tsv, line 1", "separated by tabs", "q0 i0 1")),
    "TSV with four columns": (beir_with("qrels/train.tsv", b"q0\t0\ti0\t1\n"), ("train.tsv, line 1", "query-id, corpus-id")),
    "TSV score is no number": (beir_with("qrels/dev.tsv", b"q8\ti8\t1\nq9\ti9\tyes\n"), ("dev.tsv, line 2", "'yes'")),
    "TSV that starts with a broken label": (beir_with("qrels/train.tsv", b"q0\ti0\thigh\n"), ("line 1", "'high'")),
    # ids
    "duplicate item ids": (row("items", 5, id="i2"), ("1 id(s) of items", "'i2'", "row 3 and", "row 6", "unique")),
    "duplicate query ids": (row("queries", 9, id="q0"), ("1 id(s) of queries", "'q0'", "row 1 and", "row 10")),
    "missing id column": (every("items", id=None), ("corpus.jsonl", "items need the column 'id'", "title, text", "data.columns")),
    "empty id": (row("items", 3, id=" "), ("corpus.jsonl, row 4", "'id' is empty")),
    "missing query id": (row("queries", 3, id=None), ("queries.jsonl, row 4", "'id' is empty")),
    "id is a fraction": (both(*(row("items", n, id=n + 0.5) for n in range(12))), ("corpus.jsonl", "'id'", "double")),
    "label for an unknown item": (row("labels", 4, item_id="i99"), ("qrels.jsonl, row 5", "'i99'", "table of items", "1 label")),
    "label for an unknown query": (row("labels", 4, query_id="q99"), ("qrels.jsonl, row 5", "'q99'", "table of queries")),
    "labels without item_id": (every("labels", item_id=None), ("qrels.jsonl", "labels need the column 'item_id'")),
    "query is an unknown item": (row("queries", 1, item_id="i99"), ("queries.jsonl, row 2", "'i99'", "not in the corpus")),
    "query is a list of items": (every("queries", item_id=["i1"]), ("'item_id'", "list<", "labels")),
    "group is a list": (every("items", group=["g"]), ("corpus.jsonl", "'group'", "list<")),
    # texts and templates
    "empty text": (row("items", 7, title="", text=" "), ("corpus.jsonl, row 8 (id 'i7')", "text is empty", "1 of 12 items")),
    "empty query": (row("queries", 2, text=None), ("queries.jsonl, row 3 (id 'q2')", "1 of 10 queries")),
    "template with an unknown column": (setting("data.item_text", "{title} by {autor}"), ("data.item_text", "'autor'", "genres")),
    "template with a misspelt column": (setting("data.item_text", "{text} {genre}"), ("did you mean 'genres'?",)),
    "query template with an item's column": (setting("data.query_text", "{title}"), ("data.query_text", "'title'", "queries")),
    "data.columns names no column": (setting("data.columns", {"group": "yeer"}), ("data.columns.group", "'yeer'", "'year'?")),
    "data.columns names no id": (
        both(every("items", id=None), setting("data.columns", {"id": "key"})),
        ("items need the column 'id'", "data.columns says it is called 'key'"),
    ),
    "data.columns gives two meanings": (setting("data.columns", {"group": "year", "popularity": "year"}), ("'year' as both",)),
    # vectors
    "NaN in a vector": (both(vectors(3), row("items", 4, vector=[1.0, math.nan, 0.0])), ("row 5 (id 'i4')", "NaN", "1 row(s)")),
    "zero vector": (both(vectors(3), row("queries", 4, vector=[0.0] * 3)), ("queries.jsonl, row 5 (id 'q4')", "all zero")),
    "vector too long": (both(vectors(3), row("items", 4, vector=[1.0] * 4)), ("row 5 (id 'i4')", "3 numbers", "found 4")),
    "empty vectors": (every("items", vector=[]), ("row 1 (id 'i0')", "at least one number", "found 0")),
    "vector missing": (both(vectors(3), row("items", 4, vector=None)), ("row 5 (id 'i4')", "found 0")),
    "vectors of texts": (every("items", vector=["a"]), ("'vector'", "lists of numbers", "string")),
    "vectors in one of two files": (
        both(file("c/1.jsonl", LINE[:-2] + b', "vector": [1]}\n'), file("c/2.jsonl", LINE.replace(b"i0", b"i1"))),
        ("2.jsonl", "expected vectors", "found none"),
    ),
    "vectors only in the corpus": (vectors(3, ("items",)), ("vectors of 3 numbers", "the queries have no vectors")),
    "vectors of two lengths": (both(vectors(3, ("items",)), vectors(4, ("queries",))), ("of 3 numbers", "of 4 numbers")),
    "adapter without vectors and model": (setting("encoder", {"kind": "adapter"}), ("`vector` column", "encoder.model")),
    # splits and scores
    "unknown split": (row("queries", 2, split="valid"), ("train, dev or test", "'valid' in 1 row(s)", "'q2'", "called dev")),
    "split is a number": (every("queries", split=1), ("queries.jsonl", "'split'", "int64")),
    "labels in two splits": (
        both(
            every("queries", split=None),
            lambda case: case.labels.extend([dict(case.labels[0], split="train"), dict(case.labels[0], split="dev")]),
        ),
        ("'q0'", "'train' and 'dev'", "one split"),
    ),
    "label in another split than its query": (row("labels", 8, split="train"), ("'q8'", "'dev'", "'train'", "one split")),
    "training query without a positive": (row("labels", 3, score=0), ("none for 1 of 8", "'q3'", "skip_queries_without")),
    "no training query with a positive": (
        both(setting("data.skip_queries_without_positive", True), every("labels", score=0)),
        ("none of the 8 training queries", "score > 0"),
    ),
    "no train split": (every("queries", split="dev"), ("train split", "found 10 of dev", 'split = "train"')),
    "nothing to measure": (both(row("labels", 8, score=0), row("labels", 9, score=0)), ('evaluation.split = "dev"', "2 queries")),
    "no test split": (setting("evaluation.split", "test"), ('evaluation.split = "test"', "0 queries", "another split")),
    "score is a fraction": (row("labels", 3, score=0.5), ("qrels.jsonl, row 4", "whole number", "found 0.5")),
    "negative score": (row("labels", 3, score=-1), ("qrels.jsonl, row 4", "score of 0 or more", "found -1")),
    "score is a text": (every("labels", score="high"), ("qrels.jsonl", "'score'", "string")),
    "score is missing": (row("labels", 3, score=None), ("qrels.jsonl, row 4", "score of 0 or more", "found none")),
    "negative weight": (row("labels", 3, weight=-1), ("qrels.jsonl, row 4", "weight of 0 or more", "found -1")),
    # rules and sizes that only the data can tell
    "rule on an unknown column": (
        setting("mining.rules", [{"column": "genre", "keep": "disjoint"}]),
        ("mining.rules[0].column", "'genre'", "genres"),
    ),
    "rule equal on a list column": (
        setting("mining.rules", [{"column": "genres", "keep": "equal"}]),
        ("mining.rules[0]", "'genres' holds lists", "disjoint"),
    ),
    "figure on an unknown column": (setting("evaluation.bad_top1_column", "genre"), ("evaluation.bad_top1_column", "'genre'")),
    "batch larger than the training queries": (setting("training.batch_size", 32), ("batch_size = 32", "8 training queries")),
    "more shards than items": (setting("cluster.shards", 13), ("cluster.shards = 13", "12 items")),
    "GPU on a machine without one": (setting("cluster.device", "gpu"), ("cluster.device", "no GPU", '"auto"')),
    "more workers than CPUs": (setting("cluster.train_workers", 3), ("train_workers", "3 × 1 CPU(s)", "offers 2 CPU(s)")),
    "missing model folder": (setting("encoder.model", "./nowhere"), ("encoder.model", "no folder", "nowhere")),
    "model folder without config.json": (
        both(file("model/notes.txt", b"x", "encoder.model")),
        ("encoder.model", "without config.json"),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_gets_one_paragraph(name: str, case: Any, refused: Any, tmp_path: Path) -> None:
    spoil, expected = MISTAKES[name]
    spoil(case)
    refused(case.run(), 2, expected)
    committed = {path.stem for path in (tmp_path / "out/run/commits").glob("*")}
    assert committed <= {"ingest"}, "nothing is made of bad data"
