"""Histories: checking the user's lists of item ids, and what a sequence encoder reads and starts from. Runs in a worker."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.commits import Outcome
from cluster.errors import DataError
from cluster.storage.model_folders import folder_digest, upload_folder
from cluster.storage.store import Store
from cluster.tables.rows import load_vectors
from cluster.tables.tables import I64, Part, csr_to_lists, lists_to_csr, offsets_of, read_part, read_parts, write_part
from jobs.config.config import Config
from jobs.stages.ingest.labels import LabelRows
from jobs.stages.ingest.lookup.ids import Ids, StoredIds, rows_among
from jobs.stages.ingest.reading.chunk import Chunk
from jobs.stages.ingest.reading.values import id_hint


class Histories:
    """The histories of all queries, chunk by chunk: first the ids of their items, then their rows."""

    def __init__(self) -> None:
        self._pieces: list[tuple[Chunk, pa.Array, I64, pa.DictionaryArray]] = []

    def take(self, table: pa.Table, chunk: Chunk) -> None:
        """Keep the `history` of each query, oldest first.

        Args:
            table: a chunk of queries with our column names.

        Raises:
            DataError: there is no such column, it holds no lists of ids, or a history is empty.
        """
        lists = _lists(table, chunk)
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        empty = np.flatnonzero(lengths == 0)
        if len(empty):
            raise DataError(
                f"{chunk.where(empty[0], table['id'])}: the history is empty; {len(empty)} of {len(lengths)} queries in this "
                f"chunk have an empty one. A sequence encoder has nothing else to read: give the items that were met "
                f"before, oldest first, or leave these queries out"
            )
        ids = lists.flatten().cast(pa.large_string()).dictionary_encode()
        self._pieces.append((replace(chunk, table=table.select(["id"])), table["id"], offsets_of(lengths), ids))

    @property
    def wanted(self) -> pa.Array:
        """The different ids in all histories."""
        ids = [pa.array([], pa.large_string()), *(ids.dictionary for _, _, _, ids in self._pieces)]
        return pc.unique(pa.concat_arrays(ids)).drop_null()

    def rows(self, wanted: pa.Array, rows: I64, known: Ids | StoredIds) -> tuple[I64, I64]:
        """(offsets [Q+1], item rows) of all histories.

        Args:
            wanted, rows: the different ids, and the row of each; -1: there is no such item. known: all ids, for messages.

        Raises:
            DataError: a history names an unknown item.
        """
        lengths, values = [], []
        for chunk, query_ids, offsets, ids in self._pieces:
            of_dictionary = rows_among(ids.dictionary, wanted)
            of_dictionary = np.where(of_dictionary >= 0, np.append(rows, -1)[of_dictionary], -1)
            indices = pc.fill_null(ids.indices, -1).to_numpy(zero_copy_only=False)
            found = np.where(indices >= 0, np.append(of_dictionary, -1)[indices], -1)
            unknown = np.flatnonzero(found < 0)
            if len(unknown):
                first = np.searchsorted(offsets, unknown[0], side="right") - 1
                names = ids.take(pa.array(unknown)).cast(pa.large_string())
                hint = id_hint(pc.unique(names), known)
                raise DataError(
                    f"{chunk.where(first, query_ids)}: the history names item {names[0].as_py()!r}, which is not in "
                    f"the corpus; {len(unknown)} of {len(ids)} entries of histories in this chunk do "
                    f"so.{hint or ' Take them out of the histories, or add the items'}"
                )
            lengths.append(np.diff(offsets))
            values.append(found)
        return offsets_of(np.concatenate(lengths)), np.concatenate(values)


def refuse_repeats(histories: tuple[I64, I64], labels: LabelRows, queries: Ids, items: Ids | StoredIds) -> None:
    """Raises DataError: a relevant item is in the query's own history, where it can never be found."""
    offsets, rows = histories
    count = len(items)
    met = np.repeat(np.arange(len(queries)), np.diff(offsets)) * count + rows
    relevant = labels.scores > 0
    again = np.flatnonzero(np.isin(labels.query_rows[relevant] * count + labels.item_rows[relevant], met))
    if len(again):
        query, item = (
            ids.names(rows[relevant][again[:1]])[0] for ids, rows in ((queries, labels.query_rows), (items, labels.item_rows))
        )
        raise DataError(
            f"expected relevant items that are not in the query's own history, found {len(again)} that are, the "
            f"first is {item!r} of query {query!r}; take them out of the labels, or set encoder.repeats = true "
            f"where items come again"
        )


def _lists(table: pa.Table, chunk: Chunk) -> pa.Array:
    if "history" not in table.column_names:
        raise DataError(
            f"{chunk.file}: encoder.kind = \"sequence\" needs the column 'history' in the queries, lists of item "
            f"ids, oldest first; found {', '.join(table.column_names)}; if it has another name, say data.columns = "
            f'{{ history = "its name" }}'
        )
    column = table["history"]
    is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    inner = column.type.value_type if is_list else pa.float32()
    known = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_null)
    if not any(is_kind(inner) for is_kind in known):
        raise DataError(
            f"{chunk.file}: column 'history' should hold lists of item ids, found {column.type}; write it so, or "
            f"name the right column in data.columns"
        )
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)


def write_sequence(
    config: Config, store: Store, folder: str, corpus: Sequence[Part], queries: Sequence[Part], vectors: Sequence[Part]
) -> Outcome:
    """The features of all items and queries, and the untrained encoder that reads them.

    Holds the base vectors of all items in memory, [N, D] float32.

    Args:
        vectors: base vectors of the items, column `vector`, in row order.
    """
    from training.encoders.sequence import DEFAULT_HISTORY, history_tokens, item_tokens, new_sequence_folder
    from training.encoders.tokens.features import Tokens

    longest = config.encoder.max_length or DEFAULT_HISTORY

    def write(table: str, part: Part, tokens: Tokens) -> Part:
        rows = pa.array(np.arange(part.first_row, part.first_row + part.rows, dtype=np.int64))
        return write_part(
            store,
            f"{folder}/{table}/{part.path.rsplit('/', 1)[-1]}",
            first_row=part.first_row,
            table=pa.table({"row": rows, "tokens": csr_to_lists(tokens.offsets, tokens.values)}),
        )

    items = [write("corpus", part, item_tokens(part.first_row, part.rows)) for part in corpus]
    asked, cut = [], 0
    for part in queries:
        offsets, rows = lists_to_csr(read_part(store, part, ["history_rows"])["history_rows"])
        asked.append(write("queries", part, history_tokens(offsets, rows, longest)))
        cut += int((np.diff(offsets) > longest).sum())
    with tempfile.TemporaryDirectory(prefix="hardmine-sequence-") as local:
        ids = read_parts(store, corpus, ["id"])["id"].to_pylist()
        new_sequence_folder(
            Path(local),
            load_vectors(store, vectors),
            ids,
            hidden=config.encoder.hidden,
            max_length=longest,
            seed=config.rounds.seed,
        )
        files = upload_folder(Path(local), store, f"{folder}/model")
    return Outcome(
        tables={"corpus": items, "queries": asked},
        files=files,
        figures={"prefix": f"{folder}/model", "digest": folder_digest(files, f"{folder}/model"), "histories_cut": cut},
    )
