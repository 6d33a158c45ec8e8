"""New data against what is served and what the model knows: items of the live export, labels and queries of a run."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.commits import Commit, Ledger
from cluster.errors import HardmineError
from cluster.storage.store import Store
from cluster.tables.tables import read_parts
from jobs.record.stages import Kind, Stage
from jobs.serving.refresh.changes import Changes, item_counts, known_rows, new_and_gone
from jobs.serving.search.opened import Opened

SAMPLE = 300
"""Queries of each side that drift is measured with."""
OWN = ("row", "text_code", "group_code", "vector")


def compare_data(live: Opened, store: Store, ingest: Commit, before: Store | None) -> Changes:
    """What changed.

    Args:
        store, ingest: the run that read the data now.
        before: the run that read it for the live export; None, or one that is gone: labels and queries cannot be compared.
    """
    corpus = read_parts(store, ingest.parts("corpus"))
    ids, texts = (corpus[name].combine_chunks() for name in ("id", "text"))
    rows, same = known_rows(ids, texts, live.items["id"].combine_chunks(), live.items["text"].combine_chunks())
    counts = item_counts(rows, same, live.stamp.items)
    metadata = False
    if same.all() and counts["items_gone"] == 0:
        kept = corpus.select([name for name in corpus.column_names if name not in OWN])
        metadata = sorted(kept.column_names) != sorted(live.items.column_names) or not kept.equals(
            live.items.select(kept.column_names)
        )
    labels, queries = _pairs(store, ingest), _query_texts(store, ingest)
    changes = Changes(**counts, metadata_changed=metadata, labels=len(pc.unique(labels)), queries=len(pc.unique(queries)))
    old = _ingest_of(before)
    if before is None or old is None:
        return changes
    labels_new, labels_gone = new_and_gone(labels, _pairs(before, old))
    known = pc.unique(_query_texts(before, old))
    values = changes.as_json() | {"labels_new": labels_new, "labels_gone": labels_gone}
    return Changes(**values | {"queries_new": new_and_gone(queries, known)[0], "drift": _drift(live, queries, known)})


def _ingest_of(run: Store | None) -> Commit | None:
    try:
        return Ledger(run).find(Stage(Kind.INGEST).name) if run is not None else None
    except HardmineError:
        return None


def _pairs(store: Store, ingest: Commit) -> pa.Array:
    """ "query id, item id" of each label that says relevant."""
    labels = read_parts(store, ingest.parts("labels"), ["query_row", "item_row", "score"])
    labels = labels.filter(pc.greater(labels["score"], 0))
    sides = [
        read_parts(store, ingest.parts(table), ["id"])["id"].combine_chunks().take(labels[row].combine_chunks())
        for table, row in (("queries", "query_row"), ("corpus", "item_row"))
    ]
    return pc.binary_join_element_wise(*(side.cast(pa.large_string()) for side in sides), pa.scalar("\0", pa.large_string()))


def _query_texts(store: Store, ingest: Commit) -> pa.Array:
    return read_parts(store, ingest.parts("queries"), ["text"])["text"].combine_chunks().cast(pa.large_string())


def _drift(live: Opened, queries: pa.Array, known: pa.Array) -> float | None:
    """See `Changes.drift`; None: there are no queries of one kind."""
    is_known = pc.is_in(queries, known).to_numpy(zero_copy_only=False)
    means = []
    for some in (is_known, ~is_known):
        rows = np.random.default_rng(0).permutation(np.flatnonzero(some))[:SAMPLE]
        texts = [text for text in queries.take(pa.array(np.sort(rows))).to_pylist() if text and text.strip()]
        if not texts:
            return None
        means.append(float(live.search(live.encode(texts), 1).scores.mean()))
    return round(means[0] - means[1], 4)
