"""Which split each query belongs to: what the data says, else what is cut here, where queries with one text stay together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa

from cluster.errors import DataError
from cluster.storage.settings import StorageSettings
from cluster.tables.tables import I64
from jobs.stages.ingest.labels import LabelRows
from jobs.stages.ingest.reading.chunk import Chunk
from jobs.stages.ingest.reading.files import source_files
from jobs.stages.ingest.texts import stable_code

SPLITS = ("train", "dev", "test")
FILE_OF_SPLIT = re.compile(r"(train|dev|test|val)(?:ing|elopment|id|idation)?(?![a-z])", re.IGNORECASE)
"""How a file of one split is named in a folder: train.tsv, test-00000-of-00001.parquet, validation.csv."""


def splits_of_files(url: str, storage: StorageSettings, table: str) -> dict[str, str]:
    """File -> the split that it is named after, for the files of a folder of queries or labels.

    A folder of queries says something only with files of several splits: on the Hugging Face hub, whatever has no split is
    called train.

    Raises:
        DataError: some files are named after splits and others are not: what is theirs?
    """
    if table == "corpus":
        return {}
    store, names = source_files(url, storage)
    if store.url(names[0]).rstrip("/").endswith(url.rstrip("/").rpartition("/")[2]):  # a file, not a folder
        return {}
    matches = {store.url(name): FILE_OF_SPLIT.match(name.rpartition("/")[2]) for name in names}
    splits = {name: match[1].lower().replace("val", "dev") for name, match in matches.items() if match}
    if table == "queries" and len(set(splits.values())) < 2:
        return {}
    if splits and len(splits) < len(matches):
        other = next(name for name in matches if name not in splits)
        raise DataError(
            f"{url}: some files are named after the split of their {table}, but not {other.rpartition('/')[2]}; expected names "
            f"that begin with train, dev or test; rename it, or write a column `split`"
        )
    return splits


def with_split(chunk: Chunk, splits: Mapping[str, str], columns: Mapping[str, str]) -> Chunk:
    """The chunk, with the split of its file where it has no such column.

    Args:
        splits: as of `splits_of_files`. columns: our column name -> the name in the data.
    """
    if chunk.file not in splits or columns.get("split", "split") in chunk.table.column_names:
        return chunk
    values = pa.array([splits[chunk.file]] * chunk.table.num_rows, pa.string())
    return replace(chunk, table=chunk.table.append_column("split", values))


def assign_splits(
    own: list[str | None] | None, labels: LabelRows, query_ids: pa.Array, dev_fraction: float, questions: I64 | None = None
) -> tuple[list[str], dict[str, int]]:
    """The split of every query: its own, else that of its labels, else train; a dev split is cut where there is none.

    Args:
        questions: [Q] the first query with the same text, which goes to dev with it; None: all texts differ.

    Returns:
        (split of each query row, notes: counts of what was decided here).

    Raises:
        DataError: a split is not train, dev or test; or a query has labels of two splits, or of another than its own.
    """
    splits = known_splits(own, labels, query_ids)
    labelled = set(labels.query_rows.tolist())
    result = [split or ("train" if row in labelled else "none") for row, split in enumerate(splits)]
    notes = {}
    if "dev" not in result:
        cut = _dev_rows(result, labels, _names(query_ids, questions), dev_fraction)
        for row in cut:
            result[row] = "dev"
        notes["dev_queries_cut_from_train"] = len(cut)
    return result, notes


def known_splits(own: list[str | None] | None, labels: LabelRows, query_ids: pa.Array) -> list[str | None]:
    """The split of every query: its own, else that of its labels; None: neither says it. Raises DataError as `assign_splits`."""
    splits = _splits_of_labels(own if own is not None else [None] * len(query_ids), labels, query_ids)
    wrong = [row for row, split in enumerate(splits) if split is not None and split not in (*SPLITS, "none")]
    if wrong:
        same = sum(splits[row] == splits[wrong[0]] for row in wrong)
        raise DataError(
            f"expected a split of train, dev or test, found {splits[wrong[0]]!r} in {same} row(s), the first is "
            f"query {query_ids[wrong[0]].as_py()!r}; rename it (a validation split is called dev)"
        )
    return splits


def _names(query_ids: pa.Array, questions: I64 | None) -> list[str]:
    """What each query is drawn by: its id; of queries with one text the first of their ids, whatever their order."""
    names: list[str] = query_ids.to_pylist()
    if questions is None:
        return names
    of_question: dict[int, str] = {}
    for question, name in zip(questions.tolist(), names, strict=True):
        of_question[question] = min(name, of_question.get(question, name))
    return [of_question[question] for question in questions.tolist()]


def _dev_rows(splits: list[str], labels: LabelRows, names: list[str], dev_fraction: float) -> list[int]:
    """Training queries that become dev, those with a positive and all of their text: drawn by name, so the same in every run.

    At least one of two, and never all.
    """
    relevant = set(labels.relevant.tolist())
    drawn = {
        names[row]: stable_code(f"dev:{names[row]}") % 10_000
        for row, split in enumerate(splits)
        if split == "train" and row in relevant
    }
    cut = {name for name, number in drawn.items() if number < dev_fraction * 10_000}
    if len(drawn) < 2:
        return []
    if not cut:
        cut = {min(drawn, key=drawn.__getitem__)}
    elif len(cut) == len(drawn):
        cut.remove(max(drawn, key=drawn.__getitem__))
    return [row for row, split in enumerate(splits) if split == "train" and names[row] in cut]


def leave_out_queries(
    splits: list[str], query_ids: pa.Array, train_fraction: float, questions: I64 | None = None
) -> dict[str, int]:
    """Give all but a share of the training queries the split "none", in place: drawn by id, at least one stays.

    The queries of a smaller share are among those of a larger one. Returns notes: how many were left out.

    Args:
        questions: as of `assign_splits`; queries with one text stay or go together.
    """
    if train_fraction >= 1.0:
        return {}
    names = _names(query_ids, questions)
    drawn = {row: stable_code(f"train:{names[row]}") % 1_000_000 for row, split in enumerate(splits) if split == "train"}
    first = names[min(drawn, key=drawn.__getitem__)]
    left = [row for row, number in drawn.items() if number >= train_fraction * 1_000_000 and names[row] != first]
    for row in left:
        splits[row] = "none"
    return {"train_queries_left_out": len(left)}


def _splits_of_labels(own: list[str | None], labels: LabelRows, query_ids: pa.Array) -> list[str | None]:
    """`own`, with what the labels say where it says nothing."""
    result = list(own)
    for row, split in zip(labels.query_rows.tolist(), labels.splits, strict=True):
        if split is None or result[row] in (split, "none"):
            continue
        if result[row] is not None:
            says = (
                f"is in the split {own[row]!r} and has labels of {split!r}"
                if own[row] is not None
                else (f"has labels in the splits {result[row]!r} and {split!r}")
            )
            raise DataError(
                f"query {query_ids[row].as_py()!r} {says}; a query belongs to one split, or what is measured "
                f"was trained on: remove it from the others"
            )
        result[row] = split
    return result
