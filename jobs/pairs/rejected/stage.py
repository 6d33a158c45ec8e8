"""The rejected queries of all partitions as clusters and as a sheet, rejected.csv, that a person edits. One task."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cluster.storage.store import Store
from cluster.tables.tables import read_part
from jobs.pairs.rejected.clusters import cluster
from jobs.pairs.rejected.proposals import Proposed, propose
from jobs.pairs.tasks import read_object

SHEET = "rejected.csv"
COLUMNS = ("cluster", "name", "query", "count", "reasons", "proposal", "item_id", "title", "score", "accept")
MOST = 10_000
"""Queries that are clustered, the most asked ones."""
WITH_PROPOSALS = 1_000
"""Of these, queries with proposals."""
ITEMS = 20_000
"""Items that are looked at together."""


@dataclass(frozen=True)
class RejectedTask:
    """What the task needs."""

    refused: list[str]
    corpus: list[str]


def write_sheet(store: Store, folder: str, number: int, task: RejectedTask) -> dict[str, Any]:
    """Cluster, propose, and write the sheet."""
    table, total = _most_asked(store, task.refused)
    if table is None or not table.num_rows:
        return {"objects": {}, "rejected": 0, "clusters": []}
    queries, counts, reasons = (table[name].to_pylist() for name in ("query", "count", "reasons"))
    clusters = cluster(queries)
    proposed = propose(queries[:WITH_PROPOSALS], _items(store, task.corpus)) if task.corpus else []
    order = sorted(range(len(queries)), key=lambda row: (clusters.of[row], row))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in order:
        head = [int(clusters.of[row]), _cell(clusters.names[clusters.of[row]]), _cell(queries[row]), counts[row], reasons[row]]
        for line in _proposals(proposed[row] if row < len(proposed) else Proposed()):
            writer.writerow([*head, *line, ""])
    data = out.getvalue().encode()
    store.write_bytes(SHEET, data)
    named = []
    for own_number, name in enumerate(clusters.names):
        members = [row for row in order if clusters.of[row] == own_number]
        named.append({"name": name, "queries": len(members), "asked": sum(counts[row] for row in members),
                      "examples": [queries[row] for row in members[:5]]})  # fmt: skip
    with_proposal = sum(bool(one.relevant) for one in proposed)
    return {"objects": {SHEET: len(data)}, "rejected": total, "clusters": named, "with_proposals": with_proposal}


def _most_asked(store: Store, paths: list[str]) -> tuple[pa.Table | None, int]:
    """(the MOST that were asked most, how many there are)."""
    most: pa.Table | None = None
    total = 0
    for path in paths:
        table = read_object(store, path)
        total += table.num_rows
        both = table if most is None else pa.concat_tables([most, table])
        most = both.sort_by([("count", "descending"), ("text", "ascending")]).slice(0, MOST).combine_chunks()
    return most, total


def _proposals(proposed: Proposed) -> Iterator[list[Any]]:
    lines = [("relevant", one, 1) for one in proposed.relevant] + [("not relevant", one, 0) for one in proposed.irrelevant]
    for kind, (_, item, title), score in lines:
        yield [kind, item, _cell(title or ""), score]
    if not lines:
        yield ["", "", "", ""]


def _cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _items(store: Store, paths: list[str]) -> Iterator[pa.Table]:
    for path in paths:
        table = read_part(store, path)
        for start in range(0, table.num_rows, ITEMS):
            yield table.slice(start, ITEMS)
