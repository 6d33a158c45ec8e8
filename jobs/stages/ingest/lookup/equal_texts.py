"""What equal texts come to: queries with one text are one question, and a query may itself be an item. Runs in a worker.

Texts are equal as `normalise` compares them. The queries of one question keep their rows, and share their labels:

    same split      what is relevant (or judged irrelevant) to one is so to all
    another split   what is relevant there is no negative here, and does not count as relevant either
    own text        an item with the query's text is no negative of it, unless it is labelled
    own item        the item that a query is is neither its hit nor its negative, unless it is labelled relevant

Q queries, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.errors import DataError
from cluster.storage.store import Store
from cluster.tables.rows import read_rows
from cluster.tables.tables import I64, read_part
from jobs.config.templates import Template
from jobs.stages.ingest.items import Items
from jobs.stages.ingest.labels import LabelRows, no_negatives
from jobs.stages.ingest.lookup.item_codes import ItemTexts, Shared, codes_of, same_vectors, shared_codes, texts_of_items
from jobs.stages.ingest.tables import Written
from jobs.stages.ingest.texts import normalise, stable_code
from training.settings import EncoderSettings

MOST_ADDED = 20_000_000
"""Labels that equal texts may add; they are held in memory wherever labels are."""


@dataclass(frozen=True)
class EqualTexts:
    """Which queries have one text, and which items they are."""

    questions: I64
    """[Q] the first query with the same text; mostly the query itself."""
    own_items: I64
    """[Q] the item that the query is; -1: it is none."""
    query_codes: I64
    """[Q] codes of the normalised texts; -1: the query is no text."""
    items: ItemTexts
    look_for_themselves: I64
    """Rows of the queries that would be an item if that were not labelled relevant for them."""
    one_text: bool = False
    """All items have the same text."""

    @property
    def several(self) -> npt.NDArray[np.bool_]:
        """[Q] another query has the same text."""
        several: npt.NDArray[np.bool_] = np.bincount(self.questions, minlength=len(self.questions))[self.questions] > 1
        return several


def reads_vectors(encoder: EncoderSettings) -> bool:
    """Whether the encoder reads the vectors that came with the data, and not the texts."""
    return encoder.kind in ("adapter", "vectors", "sequence") and encoder.model is None


def find_equal_texts(
    store: Store,
    queries: Written,
    items: Items,
    labels: LabelRows,
    item_template: Template,
    *,
    own: I64,
    of_their_id: I64 | None,
    on_vectors: bool,
    shared: Shared | None,
    retries: int,
) -> EqualTexts:
    """Compare the texts of all queries and items.

    Args:
        item_template: how an item's text was made.
        own: [Q] the item that the query says it is; -1: it says none.
        of_their_id: [Q] the item with the query's id; -1: there is none. None: a query is its history, and whatever text it has
            plays no part.
        on_vectors: queries are read as the vectors that came with the data, so equal ones need about the same vector, too.
        shared: which items have one code; None: not known yet.
    """
    if of_their_id is None:
        questions, codes = np.arange(len(own)), np.full(len(own), -1, np.int64)
    else:
        questions, codes = first_of_equal(queries.text_codes), queries.text_codes
        own = np.where(own >= 0, own, _items_of_their_id(store, queries, items, of_their_id, item_template))
    if on_vectors and of_their_id is not None:
        questions = _of_one_vector(store, queries, questions)
    relevant = labels.take(np.flatnonzero(labels.scores > 0))
    wanted = np.unique(relevant.query_rows[relevant.item_rows == own[relevant.query_rows]])
    own = own.copy()
    own[wanted] = -1
    rows = np.concatenate([labels.item_rows, own[own >= 0]])
    repeated = shared or shared_codes(store, items.codes, retries)
    texts = texts_of_items(store, items.codes, rows, codes[codes >= 0], repeated.repeated, retries)
    return EqualTexts(questions, own, codes, texts, wanted, one_text=repeated.codes == 1)


def first_of_equal(codes: I64) -> I64:
    """[Q] the first row with the same code."""
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    return first[inverse].astype(np.int64)


def _of_one_vector(store: Store, written: Written, first: I64) -> I64:
    """`first`, the first row with the same text, or the row itself if its vector is another than that of the first."""
    result = first.copy()
    for part in written.parts:
        rows = np.arange(part.first_row, part.first_row + part.rows)
        later = rows[first[rows] != rows]
        if len(later):
            other = later[~same_vectors(store, written.parts, later, first[later])]
            result[other] = other
    return result


def _items_of_their_id(store: Store, queries: Written, items: Items, rows: I64, template: Template) -> I64:
    """[Q] the item with the query's id, if it has the query's text, too; -1: none. `rows`: the item with its id."""
    named = np.flatnonzero(rows >= 0)
    if not len(named):
        return rows
    codes, same = np.full(len(rows), -1, np.int64), np.zeros(len(rows), bool)
    codes[named] = codes_of(store, items.codes, rows[named])
    same[named] = queries.text_codes[named] == codes[named]
    for part in queries.parts:  # of an item with a title and a text, a query may be the text
        mine = named[(named >= part.first_row) & (named < part.first_row + part.rows)]
        mine = mine[~same[mine]]
        if len(mine):
            texts = read_part(store, part, ["text"])["text"].take(pa.array(mine - part.first_row))
            same[mine] = _filled_in(store, items, rows[mine], texts, template) == codes[mine]
    return np.where(same, rows, -1)


def _filled_in(store: Store, items: Items, rows: I64, texts: pa.ChunkedArray, template: Template) -> I64:
    """The codes that items would have if these were their texts; -1 where items have nothing beside a text."""
    beside = [name for name in dict.fromkeys(template.fields) if name != "text" and name in items.columns]
    if not beside or "text" not in template.fields:
        return np.full(len(rows), -1, np.int64)
    values = read_rows(store, items.corpus, rows, beside).append_column("text", texts).to_pylist()
    return np.array([stable_code(normalise(template.render(row))) for row in values], np.int64)


def share_labels(labels: LabelRows, splits: Sequence[str], texts: EqualTexts) -> LabelRows:
    """The labels with what equal texts add to them.

    Args:
        splits: of every query; one of "none" gets nothing.

    Returns:
        As `LabelRows.unrepeated` leaves them.

    Raises:
        DataError: equal texts would add more than MOST_ADDED labels.
    """
    used = np.array([split != "none" for split in splits], bool)
    labels, _ = labels.unrepeated()
    shared = _shared(labels, splits, used, texts) if texts.several.any() else labels
    asked, are_items = np.flatnonzero(used), np.flatnonzero(used & (texts.own_items >= 0))
    own = [
        _no_negatives(shared, asked, texts.query_codes[asked], texts),
        _no_negatives(shared, are_items, texts.items.of(texts.own_items[are_items]), texts),  # copies of what the query is
    ]
    return shared.joined(*own).unrepeated()[0] if any(len(some.query_rows) for some in own) else shared


def _shared(labels: LabelRows, splits: Sequence[str], used: npt.NDArray[np.bool_], texts: EqualTexts) -> LabelRows:
    """The labels with those of other queries with the same text, of the same split and of others."""
    names = {split: number for number, split in enumerate(dict.fromkeys(splits))}
    split_Q = np.array([names[split] for split in splits], np.int64)
    mine = labels.take(np.flatnonzero(texts.several[labels.query_rows]))
    relevant = mine.take(np.flatnonzero(mine.scores > 0))
    same = _spread(mine, texts.questions * len(names) + split_Q, np.flatnonzero(texts.several & used), texts)
    elsewhere = _spread(relevant, texts.questions, np.flatnonzero(_across(texts.questions, split_Q) & used), texts)
    return labels.joined(same, no_negatives(elsewhere.query_rows, elsewhere.item_rows)).unrepeated()[0]


def _across(questions: I64, split_Q: I64) -> npt.NDArray[np.bool_]:
    """[Q] a query with the same text is in another split."""
    lowest, highest = split_Q.copy(), split_Q.copy()
    np.minimum.at(lowest, questions, split_Q)
    np.maximum.at(highest, questions, split_Q)
    across: npt.NDArray[np.bool_] = lowest[questions] != highest[questions]
    return across


def _spread(labels: LabelRows, key_Q: I64, rows: I64, texts: EqualTexts) -> LabelRows:
    """For every query of `rows` the labels of all queries of its key, each item with its highest grade; not the query itself."""
    keys = key_Q[labels.query_rows]
    order = np.lexsort((-labels.grades, labels.item_rows, keys))
    first = np.ones(len(order), bool)
    first[1:] = (np.diff(keys[order]) != 0) | (np.diff(labels.item_rows[order]) != 0)
    best = order[first]
    start, stop = (np.searchsorted(keys[best], key_Q[rows], side=side) for side in ("left", "right"))
    owner, index = _ranges(start, stop)
    spread = replace(labels.take(best[index]), query_rows=rows[owner])
    return spread.take(np.flatnonzero(spread.item_rows != texts.own_items[spread.query_rows]))


def _no_negatives(labels: LabelRows, rows: I64, codes: I64, texts: EqualTexts) -> LabelRows:
    """The items with the text `codes` of each query of `rows`, but for those with a label and the one that the query is."""
    order = np.argsort(texts.items.codes, kind="stable")
    start, stop = (np.searchsorted(texts.items.codes[order], codes, side=side) for side in ("left", "right"))
    owner, index = _ranges(start, stop)
    queries, items = rows[owner], texts.items.rows[order[index]]
    count = np.int64(max(texts.items.rows.max(initial=0), labels.item_rows.max(initial=0)) + 1)
    new = ~np.isin(queries * count + items, labels.query_rows * count + labels.item_rows) & (items != texts.own_items[queries])
    return no_negatives(queries[new], items[new])


def _ranges(start: I64, stop: I64) -> tuple[I64, I64]:
    """(position of the range, number) of all numbers in the ranges start … stop - 1. Raises DataError: there are too many."""
    lengths = stop - start
    total = int(lengths.sum())
    if total > MOST_ADDED:
        raise DataError(
            f"expected queries of different texts, found some text so often that its queries, which share their labels, "
            f"would have {total:,} of them; at most {MOST_ADDED:,} are possible. Make queries of one text one row of the "
            f"queries, with all their labels"
        )
    owner = np.repeat(np.arange(len(start)), lengths)
    return owner, np.arange(total) - (np.cumsum(lengths) - lengths)[owner] + start[owner]


def equal_text_figures(texts: EqualTexts, splits: Sequence[str], labels: LabelRows) -> dict[str, Any]:
    """Counts for the figures of ingest: see docs/decisions.md, "Equal texts"."""
    used = np.array([split != "none" for split in splits], bool)
    rows = np.flatnonzero(used)
    questions = first_of_equal(texts.questions[rows])
    names = {split: number for number, split in enumerate(dict.fromkeys(splits))}
    split_Q = np.array([names[split] for split in splits], np.int64)[rows]
    across = _across(questions, split_Q)
    wanted = np.isin(texts.items.rows, labels.item_rows[labels.scores > 0])
    copies = np.isin(texts.items.codes, texts.items.codes[wanted]) & ~wanted
    return {
        "queries": int((np.bincount(questions, minlength=len(rows))[questions] > 1).sum()),
        "across_splits": {
            split: count for split, number in names.items() if (count := int((across & (split_Q == number)).sum()))
        },
        "queries_that_are_items": int((texts.own_items[rows] >= 0).sum()),
        "queries_that_look_for_themselves": int(used[texts.look_for_themselves].sum()),
        "items": texts.items.repeated,
        "copies_of_relevant_items": int(copies.sum()),
    }
