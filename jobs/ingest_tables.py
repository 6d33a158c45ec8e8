"""Checking the user's tables and writing the run's own: runs in a worker, chunk by chunk."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError
from cluster.storage import Store
from cluster.tables import I64, Part, lists_to_csr, part_name, vectors_to_column, write_part
from jobs.sources import Chunk
from jobs.templates import Template

OWN = ("row", "text_code", "group_code", "item_row")
SPLITS = ("train", "dev", "test")


@dataclass
class Written:
    """One table of the run."""

    parts: list[Part]
    ids: pa.Array
    """Ids in row order."""
    columns: list[str]
    text_codes: I64
    dimension: int | None
    """Length of the `vector` column; None: there is none."""


def stable_code(text: str) -> int:
    """A 63-bit number that is the same for the same text on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def normalise(text: str) -> str:
    """What two duplicate texts have in common: letters without case, single spaces."""
    return " ".join(text.lower().split())


class TableWriter:
    """Writes rows as numbered parts of equal size."""

    def __init__(self, store: Store, folder: str, part_rows: int) -> None:
        self._store, self._folder, self._part_rows = store, folder, part_rows
        self._pending: list[pa.Table] = []
        self._rows = 0
        self.parts: list[Part] = []

    def add(self, table: pa.Table) -> None:
        """Append rows; writes every part that is full."""
        self._pending.append(table)
        while sum(piece.num_rows for piece in self._pending) >= self._part_rows:
            joined = pa.concat_tables(self._pending, promote_options="permissive")
            self._write(joined.slice(0, self._part_rows))
            self._pending = [joined.slice(self._part_rows)]

    def close(self) -> list[Part]:
        """Write what is left; returns all parts."""
        left = pa.concat_tables(self._pending, promote_options="permissive") if self._pending else None
        if left is not None and left.num_rows:
            self._write(left)
        self._pending = []
        return self.parts

    def _write(self, table: pa.Table) -> None:
        path = f"{self._folder}/{part_name(len(self.parts))}"
        self.parts.append(write_part(self._store, path, table.combine_chunks(), first_row=self._rows))
        self._rows += table.num_rows


def rename(chunk: Chunk, columns: dict[str, str], needed: Sequence[str], what: str) -> pa.Table:
    """The chunk with our column names.

    Raises:
        DataError: a needed column is missing; names those that are there.
    """
    table = chunk.table
    names = list(table.column_names)
    for ours, theirs in columns.items():
        if theirs in names:
            if ours in names and ours != theirs:
                names[names.index(ours)] = f"{ours}_"
            names[names.index(theirs)] = ours
    for old, new in (("_id", "id"), ("query-id", "query_id"), ("corpus-id", "item_id")):
        if old in names and new not in names:
            names[names.index(old)] = new
    names = [f"{name}_" if name in OWN and not (name == "item_row") else name for name in names]
    table = table.rename_columns(names)
    missing = [name for name in needed if name not in names]
    if missing:
        raise DataError(f"{chunk.file}: {what} need the column {missing[0]!r}; found {', '.join(names)}. If it has another "
                        f"name, say data.columns = {{ {missing[0]} = \"its name\" }}")
    return table


def _texts_of(table: pa.Table, template: Template) -> list[str]:
    fields = [field for field in dict.fromkeys(template.fields) if field in table.column_names]
    values = [table[field].to_pylist() for field in fields]
    return [template.render(dict(zip(fields, row, strict=True))) for row in zip(*values, strict=True)]


def _ids_of(table: pa.Table, column: str, chunk: Chunk) -> pa.Array:
    ids = table[column]
    if not (pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type) or pa.types.is_integer(ids.type)):
        raise DataError(f"{chunk.file}: column {column!r} should hold texts or whole numbers, found {ids.type}")
    ids = ids.cast(pa.string()).combine_chunks()
    empty = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(ids), ""), True)
    if pc.any(empty).as_py():
        where = int(np.flatnonzero(empty.to_numpy(zero_copy_only=False))[0])
        raise DataError(f"{chunk.file}, row {chunk.first_row + where}: column {column!r} is empty; every row needs an id")
    return ids if isinstance(ids, pa.Array) else pa.concat_arrays(ids.chunks)


def _vectors_of(table: pa.Table, ids: pa.Array, chunk: Chunk, dimension: int | None) -> npt.NDArray[np.float32]:
    column = table["vector"]
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
            or pa.types.is_fixed_size_list(column.type)):
        raise DataError(f"{chunk.file}: column 'vector' should hold lists of numbers, found {column.type}")
    offsets, flat = lists_to_csr(column.cast(pa.list_(pa.float32())))
    lengths = np.diff(offsets)
    wanted = dimension or int(lengths[0])
    wrong = np.flatnonzero(lengths != wanted)
    if len(wrong):
        raise DataError(f"{chunk.file}, row {chunk.first_row + int(wrong[0])} (id {ids[int(wrong[0])].as_py()!r}): expected "
                        f"a vector of {wanted} numbers as in the first row, found {int(lengths[wrong[0]])}; {len(wrong)} "
                        f"row(s) of this chunk differ")
    vectors = np.ascontiguousarray(flat.reshape(-1, wanted), np.float32)
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1) | ~vectors.any(axis=1))
    if len(bad):
        raise DataError(f"{chunk.file}, row {chunk.first_row + int(bad[0])} (id {ids[int(bad[0])].as_py()!r}): the vector "
                        f"holds NaN or infinity, or is all zero; {len(bad)} row(s) of this chunk do. Make these vectors anew")
    return vectors


def write_texts(
    chunks: Iterator[Chunk], store: Store, folder: str, *, what: str, columns: dict[str, str], template: Template,
    part_rows: int, extra: Callable[[pa.Table, Chunk], dict[str, pa.Array]],
) -> Written:
    """Check a table of texts (items or queries) and write it as numbered parts.

    Args:
        what: "items" or "queries", for messages.
        extra: own columns computed from a chunk.

    Raises:
        DataError: an id is missing or repeated, a text is empty, a vector is wrong, or there is no row at all.
    """
    writer = TableWriter(store, folder, part_rows)
    ids, codes, places = [], [], []
    dimension: int | None = None
    seen_columns: dict[str, None] = {}
    for chunk in chunks:
        table = rename(chunk, columns, ["id"], what)
        template.check(table.column_names, chunk.file)
        chunk_ids = _ids_of(table, "id", chunk)
        texts = _texts_of(table, template)
        _refuse_empty(texts, chunk_ids, chunk, what)
        chunk_codes = np.fromiter((stable_code(normalise(text)) for text in texts), np.int64, len(texts))
        own = {"row": pa.array(np.arange(len(texts), dtype=np.int64) + sum(map(len, ids))), "id": chunk_ids,
               "text": pa.array(texts, pa.string()), "text_code": pa.array(chunk_codes)} | extra(table, chunk)
        if "vector" in table.column_names:
            vectors = _vectors_of(table, chunk_ids, chunk, dimension)
            dimension = vectors.shape[1]
            own["vector"] = vectors_to_column(vectors)
        kept = {name: table[name] for name in table.column_names if name not in own}
        seen_columns.update(dict.fromkeys([*own, *kept]))
        writer.add(pa.table(own | kept))
        ids.append(chunk_ids)
        codes.append(chunk_codes)
        places.append((chunk.file, chunk.first_row, len(texts)))
    if not ids:
        raise DataError(f"the table of {what} has no rows; check the address in [data]")
    joined = pa.concat_arrays(ids)
    _refuse_repeated(joined, places, what)
    return Written(writer.close(), joined, list(seen_columns), np.concatenate(codes), dimension)


def _refuse_empty(texts: list[str], ids: pa.Array, chunk: Chunk, what: str) -> None:
    empty = [number for number, text in enumerate(texts) if not text]
    if empty:
        raise DataError(f"{chunk.file}, row {chunk.first_row + empty[0]} (id {ids[empty[0]].as_py()!r}): the text is empty; "
                        f"{len(empty)} of {len(texts)} {what} in this chunk have none. Leave them out, or name more columns "
                        f"in the text template of [data]")


def _refuse_repeated(ids: pa.Array, places: list[tuple[str, int, int]], what: str) -> None:
    counts = ids.value_counts()
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if not len(repeated):
        return
    name = repeated[0]["values"].as_py()
    rows = np.flatnonzero(pc.equal(ids, name).to_numpy(zero_copy_only=False))[:2]
    where = " and ".join(_place(int(row), places) for row in rows)
    raise DataError(f"{len(repeated)} id(s) of {what} occur more than once: {name!r} at {where}; ids must be unique, so "
                    f"remove or rename the repeated rows")


def _place(row: int, places: list[tuple[str, int, int]]) -> str:
    for file, first, count in places:
        if row < count:
            return f"{file} row {first + row}"
        row -= count
    return "an unknown row"


@dataclass(frozen=True)
class LabelRows:
    """Labels as rows, before they are sorted and written."""

    query_rows: I64
    item_rows: I64
    scores: I64
    weights: npt.NDArray[np.float64]
    sources: pa.Array
    splits: list[str | None]


def read_labels(
    chunks: Iterator[tuple[Chunk, str | None]], query_ids: pa.Array, item_ids: pa.Array, columns: dict[str, str],
) -> LabelRows:
    """Resolve labels to rows.

    Args:
        chunks: label chunks, each with the split its file stands for (BEIR) or None.

    Raises:
        DataError: a label names an unknown query or item, or has no whole-number score.
    """
    found: list[tuple[Any, ...]] = []
    splits: list[str | None] = []
    for chunk, split in chunks:
        table = rename(chunk, columns, ["query_id", "item_id"], "labels")
        queries = _resolve(table, "query_id", query_ids, chunk, "query")
        items = _resolve(table, "item_id", item_ids, chunk, "item")
        scores = _scores(table, chunk)
        weights = _numbers(table, "weight", chunk, 1.0)
        source = table["source"].cast(pa.string()).combine_chunks() if "source" in table.column_names else pa.nulls(
            table.num_rows, pa.string())
        found.append((queries, items, scores, weights, source if isinstance(source, pa.Array) else
                      pa.concat_arrays(source.chunks)))
        splits += table["split"].to_pylist() if split is None and "split" in table.column_names else [split] * len(items)
    if not found:
        raise DataError("the table of labels has no rows; check data.qrels")
    queries, items, scores, weights, sources = zip(*found, strict=True)
    return LabelRows(np.concatenate(queries), np.concatenate(items), np.concatenate(scores), np.concatenate(weights),
                     pa.concat_arrays(sources), splits)


def _resolve(table: pa.Table, column: str, known: pa.Array, chunk: Chunk, what: str) -> I64:
    ids = _ids_of(table, column, chunk)
    rows = pc.index_in(ids, value_set=known)
    if rows.null_count:
        missing = np.flatnonzero(rows.is_null().to_numpy(zero_copy_only=False))
        raise DataError(f"{chunk.file}, row {chunk.first_row + int(missing[0])}: the label names {what} "
                        f"{ids[int(missing[0])].as_py()!r}, which is not in the table of {what}s; {len(missing)} label(s) of "
                        f"this chunk name an unknown {what}. Remove them, or add the missing rows")
    return np.asarray(rows.to_numpy(zero_copy_only=False), dtype=np.int64)


def _scores(table: pa.Table, chunk: Chunk) -> I64:
    values = _numbers(table, "score", chunk, 1.0)
    bad = np.flatnonzero((values != np.floor(values)) | (values < 0))
    if len(bad):
        raise DataError(f"{chunk.file}, row {chunk.first_row + int(bad[0])}: expected a score that is a whole number from 0 "
                        f"(0 judged irrelevant, 1 and more relevant), found {values[bad[0]]}; {len(bad)} label(s) differ")
    return values.astype(np.int64)


def _numbers(table: pa.Table, column: str, chunk: Chunk, default: float) -> npt.NDArray[np.float64]:
    if column not in table.column_names:
        return np.full(table.num_rows, default)
    kind = table[column].type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise DataError(f"{chunk.file}: column {column!r} should hold numbers, found {kind}")
    values = pc.fill_null(table[column].cast(pa.float64()), float("nan")).to_numpy()
    bad = np.flatnonzero(~np.isfinite(values) | (values < 0))
    if len(bad):
        raise DataError(f"{chunk.file}, row {chunk.first_row + int(bad[0])}: expected a {column} of 0 or more, found "
                        f"{values[bad[0]]}; {len(bad)} label(s) differ")
    return np.asarray(values, np.float64)


def assign_splits(own: list[str | None] | None, labels: LabelRows, query_ids: pa.Array,
                  dev_fraction: float) -> tuple[list[str], dict[str, int]]:
    """The split of every query: its own, else that of its labels, else train; a dev split is cut where there is none.

    Returns:
        (split of each query row, notes: counts of what was decided here).

    Raises:
        DataError: a split is not train, dev or test; or a query has labels of two splits.
    """
    splits: list[str | None] = list(own) if own is not None else [None] * len(query_ids)
    if all(split is None for split in splits):
        splits = _splits_of_labels(labels, query_ids)
    wrong = Counter(split for split in splits if split is not None and split not in (*SPLITS, "none"))
    if wrong:
        name = next(iter(wrong))
        raise DataError(f"expected a split of train, dev or test, found {name!r} for {wrong[name]} queries; rename it (a "
                        f"validation split is called dev)")
    labelled = set(labels.query_rows.tolist())
    result = [split or ("train" if row in labelled else "none") for row, split in enumerate(splits)]
    notes = {}
    if "dev" not in result:
        cut = 0
        for row, split in enumerate(result):
            if split == "train" and stable_code(f"dev:{query_ids[row].as_py()}") % 10_000 < dev_fraction * 10_000:
                result[row] = "dev"
                cut += 1
        notes["dev_queries_cut_from_train"] = cut
    return result, notes


def _splits_of_labels(labels: LabelRows, query_ids: pa.Array) -> list[str | None]:
    result: list[str | None] = [None] * len(query_ids)
    for row, split in zip(labels.query_rows.tolist(), labels.splits, strict=True):
        if split is not None:
            if result[row] not in (None, split):
                raise DataError(f"query {query_ids[row].as_py()!r} has labels in the splits {result[row]!r} and {split!r}; a "
                                f"query belongs to one split, so remove it from the others")
            result[row] = split
    return result


def write_labels(labels: LabelRows, store: Store, folder: str) -> tuple[list[Part], int]:
    """Write labels sorted by query and item; of repeated pairs the highest score stays. (parts, repeated pairs)."""
    order = np.lexsort((-labels.scores, labels.item_rows, labels.query_rows))
    queries, items = labels.query_rows[order], labels.item_rows[order]
    first = np.ones(len(order), bool)
    first[1:] = (queries[1:] != queries[:-1]) | (items[1:] != items[:-1])
    keep = order[first]
    table = pa.table({"query_row": labels.query_rows[keep], "item_row": labels.item_rows[keep],
                      "score": labels.scores[keep], "weight": labels.weights[keep],
                      "source": labels.sources.take(pa.array(keep))})
    writer = TableWriter(store, folder, 1_000_000)
    writer.add(table)
    return writer.close(), int(len(order) - len(keep))
