"""Mistakes in corpus, queries and labels: one paragraph that names file, row, id or value, and exit code 2."""

from __future__ import annotations

import gzip
import io
import json
import math
import os
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
    "file of another kind": (file("corpus.xlsx", b"PK"), ("corpus.xlsx", "JSONL, CSV", "another kind", "convert")),
    "folder without data files": (file("there/notes.txt", b"x"), ("found notes.txt", "a folder of them")),
    "BEIR folder without training labels": (lambda case: beir(case, "dev"), ("no file", "qrels/train.tsv")),
    "corpus is an empty folder": (
        both(setting("data.corpus", "c.parquet"), lambda case: (case.folder / "c.parquet").mkdir()),
        ("c.parquet", "found an empty folder", "[data]"),
    ),
    "corpus is a link to itself": (
        both(setting("data.corpus", "c.jsonl"), lambda case: (case.folder / "c.jsonl").symlink_to("c.jsonl")),
        ("c.jsonl", "Symlink loop", "fix the address, or the symbolic links"),
    ),
    "corpus is a pipe": (
        both(setting("data.corpus", "c.jsonl"), lambda case: os.mkfifo(case.folder / "c.jsonl")),
        ("c.jsonl", "neither file nor folder"),
    ),
    "folder with a link to itself": (
        both(
            file("c/1.jsonl", LINE),
            lambda case: (case.folder / "c").mkdir(),
            lambda case: (case.folder / "c/2.jsonl").symlink_to("2.jsonl"),
        ),
        ("2.jsonl", "symbolic links"),
    ),
    "folder with a link to nothing": (
        both(
            file("c/1.jsonl", LINE),
            lambda case: (case.folder / "c").mkdir(),
            lambda case: (case.folder / "c/2.jsonl").symlink_to("nothing.jsonl"),
        ),
        ("2.jsonl", "a symbolic link that leads nowhere"),
    ),
    "empty corpus": (file("c.jsonl", b"\n"), ("at least one row", "items", "c.jsonl")),
    "empty Parquet table": (file("c.parquet", parquet({"id": pa.array([], pa.string())})), ("at least one row", "items")),
    "no labels": (file("l.jsonl", b"", "data.qrels"), ("at least one label",)),
    "not a Parquet file": (file("c.parquet", b"id,text\n1,x\n"), ("c.parquet", "not a readable Parquet file")),
    "Parquet file cut off": (file("c.parquet", GOOD[: len(GOOD) // 2]), ("c.parquet", "not a readable Parquet file")),
    "Parquet file damaged inside": (file("c.parquet", GOOD[:20] + b"\0" * 60 + GOOD[80:]), ("c.parquet", "write it again")),
    "column twice": (file("c.parquet", parquet({"id": ["a"], "x": ["a"]}).replace(b"\x02id", b"\x01x")), ()),
    "JSONL with a broken line": (file("c.jsonl", LINE + b'{"id": "i1", "te\n'), ("c.jsonl, line 2", '{"id": "i1", "te')),
    "JSONL with a list": (file("c.jsonl", LINE + b'\n["i1"]\n'), ("c.jsonl, line 3", "found list", "i1")),
    "JSONL of empty objects": (file("c.jsonl", LINE + b"\n{}\n"), ("c.jsonl, line 3", "an object with an id, found {}")),
    "JSONL with a key twice": (
        file("c.jsonl", LINE + b'{"id": "i1", "text": "x", "id": "i2"}\n'),
        ("c.jsonl, line 2", "each key once", "'id'"),
    ),
    "JSONL nested without end": (
        file("c.jsonl", LINE + b'{"id": "i1", "x": ' + b"[" * 10_000 + b"]" * 10_000 + b"}\n"),
        ("c.jsonl, line 2", "nested at most 20 levels"),
    ),
    "JSONL with half an emoji": (file("c.jsonl", LINE + b'{"id": "i1", "text": "\\ud83d"}\n'), ("line 2", "half of a surrogate")),
    "JSONL in UTF-16": (file("c.jsonl", LINE.decode().encode("utf-16")), ("line 1", "UTF-8")),
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
    "TSV with four columns": (beir_with("qrels/train.tsv", b"q0\tx\ti0\t1\n"), ("train.tsv, line 1", "query-id, corpus-id")),
    "TREC labels with a line of three": (
        beir_with("qrels/train.tsv", b"q0 0 i0 1\nq1 i1 1\n"),
        ("train.tsv, line 2", "TREC's query id, iteration, item id and score"),
    ),
    "labels in files of which one is of no split": (
        lambda case: (
            case.files.update({f"labels/{name}.tsv": f"q{n}\ti{n}\t1\n".encode() for n, name in enumerate(("train", "eval"))}),
            case.set("data.qrels", "labels"),
        ),
        ("labels", "named after the split", "not eval.tsv", "rename it"),
    ),
    "CSV with a row too long": (
        file("corpus.csv", b"id,text\ni0,red, blue\n"),
        ("corpus.csv, row 2", "2 cells (id, text), found 3", "quotation marks"),
    ),
    "CSV with an open quotation mark": (
        file("corpus.csv", b'id,text\ni0,"red\ni1,blue\n'),
        ("corpus.csv, row 2", "quotation marks come in pairs"),
    ),
    "CSV with a nameless column": (file("corpus.csv", b"id,,text\ni0,0,red\n"), ("row 1", "give each column a name")),
    "CSV in Latin-1": (file("corpus.csv", b"id,text\ni0,caf\xe9\n"), ("corpus.csv, line 2", "UTF-8")),
    "CSV without a header": (file("corpus.csv", b"i0,red\ni1,blue\n"), ("need the column 'id'", "found i0, red")),
    "CSV with a header only": (file("corpus.csv", b"id,text\n"), ("at least one row", "corpus.csv")),
    "CSV with vectors that numpy printed": (
        file("corpus.csv", b"id,text,vector\ni0,red,[0.1 0.2]\n"),
        ("corpus.csv, row 2 (id 'i0')", "a JSON list of numbers", "[0.1 0.2]"),
    ),
    "TSV score is no number": (
        beir_with("qrels/dev.tsv", b"q8\ti8\t1\nq9\ti9\tyes\n"),
        ("dev.tsv, row 2", "a number in 'score'", "'yes'"),
    ),
    "TSV with a number that Python reads": (
        beir_with("qrels/train.tsv", b"q0\ti0\t1\nq1\ti1\t1_0\n"),
        ("train.tsv, row 2", "found '1_0'", "like 1, 0.5 or -1"),
    ),
    "TSV with a number in other digits": (beir_with("qrels/train.tsv", "q0\ti0\t1\nq1\ti1\t１\n".encode()), ("row 2", "'１'")),
    "TSV with a hexadecimal number": (beir_with("qrels/train.tsv", b"q0\ti0\t1\nq1\ti1\t0x1\n"), ("row 2", "'0x1'")),
    "TSV with a space in a number": (beir_with("qrels/train.tsv", b"q0\ti0\t1\nq1\ti1\t 1\n"), ("row 2", "' 1'")),
    "TSV with nan": (beir_with("qrels/train.tsv", b"q0\ti0\t1\nq1\ti1\tnan\n"), ("row 2", "'nan'")),
    "TSV with a number beyond all": (beir_with("qrels/train.tsv", b"q0\ti0\t1\nq1\ti1\t1e999\n"), ("row 2", "'1e999'")),
    "TSV with an empty score": (beir_with("qrels/train.tsv", b"q0\ti0\t1\nq1\ti1\t\n"), ("row 2", "found ''")),
    "TSV with two headers": (beir_with("qrels/train.tsv", b"query-id\tcorpus-id\tscore\n" * 2), ("row 2", "'score'")),
    "TSV in another order": (
        beir_with("qrels/train.tsv", b"corpus-id\tquery-id\tscore\ni0\tq0\t1\n"),
        ("train.tsv, line 1", "in this order", "swap"),
    ),
    "TSV that starts with a broken label": (beir_with("qrels/train.tsv", b"q0\ti0\thigh\n"), ("line 1", "'high'")),
    # ids
    "duplicate item ids": (row("items", 5, id="i2"), ("1 id(s) of items", "'i2'", "row 3 and", "row 6", "unique")),
    "duplicate query ids": (row("queries", 9, id="q0"), ("1 id(s) of queries", "'q0'", "row 1 and", "row 10")),
    "missing id column": (every("items", id=None), ("corpus.jsonl", "items need the column 'id'", "title, text", "data.columns")),
    "empty id": (row("items", 3, id=" "), ("corpus.jsonl, row 4", "'id' is empty")),
    "missing query id": (row("queries", 3, id=None), ("queries.jsonl, row 4", "'id' is empty")),
    "id is a fraction": (
        both(*(row("items", n, id=n + 0.5) for n in range(12))),
        ("corpus.jsonl, row 1", "'id'", "found 0.5", "double"),
    ),
    "label for an unknown item": (row("labels", 4, item_id="i99"), ("qrels.jsonl, row 5", "'i99'", "table of items", "1 label")),
    "label ids with a space": (row("labels", 4, item_id="i4 "), ("row 5", "'i4 '", "There is 'i4'", "white space")),
    "label ids in quotes": (row("labels", 4, query_id='"q4"'), ("'\"q4\"'", "There is 'q4'", "quotation marks")),
    "label ids in another case": (every("labels", item_id="I3"), ("'I3'", "There is 'i3'", "upper and lower case")),
    "labels with the columns swapped": (
        both(*(row("labels", n, query_id=f"i{n}", item_id=f"q{n}") for n in range(10))),
        ("'i0'", "10 of them", "are ids of items", "swapped"),
    ),
    "label ids were numbers once": (
        both(*(row("items", n, id=str(n)) for n in range(12)), *(row("labels", n, item_id=f"{n}.0") for n in range(10))),
        ("'0.0'", "There is '0'", "a .0 at its end", "10 of 10"),
    ),
    "label ids lost their zeros": (
        both(*(row("items", n, id=f"{n:03d}") for n in range(12)), *(row("labels", n, item_id=n) for n in range(10))),
        ("'0'", "There is '000'", "zeros before it"),
    ),
    "query id is NaN, which makes doubles": (
        file(
            "l.parquet",
            parquet({"query_id": [0.0, math.nan, 2.0], "item_id": ["i0", "i1", "i2"], "score": [1, 1, 1]}),
            "data.qrels",
        ),
        ("l.parquet, row 2", "'query_id' is empty", "NaN, which also made doubles"),
    ),
    "ids beyond what a double holds": (
        file("l.parquet", parquet({"query_id": [2.0**60], "item_id": ["i0"], "score": [1]}), "data.qrels"),
        ("l.parquet, row 1", "expected an id in 'query_id'", "as text"),
    ),
    "query is an item with a space": (row("queries", 1, item_id="i9 "), ("queries.jsonl, row 2", "There is 'i9'", "white space")),
    "label for an unknown query": (row("labels", 4, query_id="q99"), ("qrels.jsonl, row 5", "'q99'", "table of queries")),
    "labels without item_id": (every("labels", item_id=None), ("qrels.jsonl", "labels need the column 'item_id'")),
    "query is an unknown item": (row("queries", 1, item_id="i99"), ("queries.jsonl, row 2", "'i99'", "not in the corpus")),
    "query is a list of items": (every("queries", item_id=["i1"]), ("'item_id'", "list<", "labels")),
    "text is an object": (
        every("items", text={"en": "a"}),
        ("corpus.jsonl", "struct<en: string>", "'text'", "columns of their own"),
    ),
    "text is a list of objects": (every("items", text=[{"en": "a"}]), ("corpus.jsonl", "'text'", "columns of their own")),
    "group is bytes": (
        file("c.parquet", parquet({"id": ["a"], "text": ["t"], "group": [b"\xff"]})),
        ("c.parquet", "'group'", "binary"),
    ),
    "group is a list": (every("items", group=["g"]), ("corpus.jsonl", "'group'", "list<")),
    # texts and templates
    "empty text": (row("items", 7, title="", text=" "), ("corpus.jsonl, row 8 (id 'i7')", "text is empty", "1 of 12 items")),
    "text that nobody sees": (
        row("items", 7, title="\u200b", text="\ufeff \u2060\u3164"),
        ("corpus.jsonl, row 8 (id 'i7')", "text is empty", "1 of 12 items"),
    ),
    "query of control characters": (row("queries", 2, text="\x00\x07"), ("queries.jsonl, row 3 (id 'q2')", "text is empty")),
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
    "score is a fraction": (row("labels", 3, score=0.5), ("qrels.jsonl, row 4", "whole number", "relevant_from", "found 0.5")),
    "score is negative": (row("labels", 3, score=-1), ("a score > 0", "none for 1 of 8", "'q3'")),
    "score is a text": (every("labels", score="high"), ("qrels.jsonl, row 1", "a number in 'score'", "'high'")),
    "score is true": (every("labels", score=True), ("qrels.jsonl", "'score' should hold numbers", "bool")),
    "score is missing": (row("labels", 3, score=None), ("qrels.jsonl, row 4", "a score in every row", "found none")),
    "score is missing in later rows": (
        lambda case: case.files.update(
            {
                "qrels.jsonl": b"".join(
                    b'{"query_id": "q%d", "item_id": "i%d"%s}\n%s'
                    % (n, n, b', "score": 1' if n < 5 else b"", b"\n" if n == 4 else b"")
                    for n in range(10)
                )
            }
        ),
        ("qrels.jsonl, from row 7", "expected a score as in the rows before, found none"),
    ),
    "score is huge": (row("labels", 3, score=1_600_000_000), ("row 4", "at most 1,000,000", "found 1.6e+09")),
    "score is infinite": (row("labels", 3, score=math.inf), ("row 4", "a number in 'score'", "found inf")),
    "score is NaN": (row("labels", 3, score=math.nan), ("row 4", "a number in 'score'", "found nan")),
    "score in another spelling": (
        both(every("labels", score=None), every("labels", Score=0)),
        ("the column 'Score' is 'score' in another spelling", 'data.columns = { score = "Score" }'),
    ),
    "weight in another spelling": (every("labels", Weight=0), ("'Weight' is 'weight' in another spelling",)),
    "title in another spelling": (
        both(every("items", title=None), every("items", Title="a")),
        ("corpus.jsonl", "'Title' is 'title' in another spelling", "would be ignored"),
    ),
    "score under another name": (
        both(every("labels", score=None), every("labels", relevance=0)),
        ("all relevant, but 'relevance' looks like one", 'data.columns = { score = "relevance" }'),
    ),
    "nothing reaches relevant_from": (
        setting("data.relevant_from", 2),
        ("a label with a score of at least relevant_from = 2", "none for 8 of 8"),
    ),
    "relevant_from without scores": (
        both(every("labels", score=None), setting("data.relevant_from", 2)),
        ("data.relevant_from = 2 needs the column 'score'", "query_id, item_id"),
    ),
    "dev queries do not reach relevant_from": (
        both(*(row("labels", n, score=2) for n in range(8)), setting("data.relevant_from", 1.5)),
        ('evaluation.split = "dev"', "score of at least data.relevant_from = 1.5"),
    ),
    "weight is negative": (row("labels", 3, weight=-1), ("qrels.jsonl, row 4", "weight from 0 to", "found -1")),
    "weight is infinite": (row("labels", 3, weight=math.inf), ("qrels.jsonl, row 4", "a number in 'weight'", "found inf")),
    "weight is NaN": (row("labels", 3, weight=math.nan), ("qrels.jsonl, row 4", "a number in 'weight'", "found nan")),
    "weight overflows a float": (row("labels", 3, weight=1e300), ("row 4", "weight from 0 to 1,000,000", "found 1e+300")),
    "all weights are 0": (every("labels", weight=0), ("a weight above 0", "found 0 in all 8", "'weight'")),
    "all weights of training queries are 0": (
        both(every("labels", weight=0), row("labels", 9, weight=1)),
        ("a weight above 0", "found 0 in all 8"),
    ),
    # labels that leave nothing to tell apart
    "every item is relevant for every query": (
        lambda case: setattr(
            case, "labels", [{"query_id": f"q{q}", "item_id": f"i{i}", "score": 1} for q in range(10) for i in range(12)]
        ),
        ("every one of the 12 items is relevant to every one of the 8 training queries", "score 0"),
    ),
    "every item is of one group": (every("items", group="all"), ("all 12 items have the same group", "data.columns.group")),
    "every item has one text": (every("items", title="a", text="b"), ("all 12 items have the same text", "data.item_text")),
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
    "one training query left by train_fraction": (
        setting("data.train_fraction", 0.01),
        ("found 1", "data.train_fraction (of a probe, times probe.fraction) leaves out 7", "raise data.train_fraction"),
    ),
    "one training query left by skipping": (
        lambda case: [case.set("data.skip_queries_without_positive", True), [label.update(score=0) for label in case.labels[:7]]],
        ("found 1", "data.skip_queries_without_positive leaves out 7", "label those without a relevant item"),
    ),
    "more micro-steps per step than an epoch has": (
        setting("training", {"batch_size": 4, "accumulation": 3}),
        ("accumulation = 3", "2 micro-step(s)", "8 examples"),
    ),
    "too few labels within the cap of a source": (
        both(setting("training.batch_size", 4), every("labels", source="synthetic"), row("labels", 3, source="click")),
        ("synthetic 7 with a cap of 20 %", "raise a cap in training.label_sources"),
    ),
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


def test_settings_that_the_data_makes_idle_are_warned_about_before_anything_is_embedded(case: Any) -> None:
    case.set("mining.choice_temperature", 0.2)
    case.set("encoder.model", "./nowhere")  # the stage after the tables stops
    case.set("encoder.dimension", None)
    case.set("encoder.vocabulary", None)
    answer = case.run()
    assert answer.code == 2
    warnings = [line for line in answer.err.splitlines() if line.startswith("! ")]
    assert warnings[0].startswith('! mining.choice_temperature = 0.2 has no effect: mining.choose = "top"')
    assert any(line.startswith("! mining.num_negatives = 32, but") for line in warnings)
    assert any("2 dev queries with a relevant item are too few" in line and "50 points" in line for line in warnings)
    assert any("2 steps in round 0 (warm-up)" in line and "training.epochs=20" in line for line in warnings)
    assert any(line.startswith("  2 dev queries: a gain below ") for line in answer.err.splitlines())
