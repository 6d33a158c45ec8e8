"""What is new in the data since the live export: items, labels, queries. Pure, on columns of ids and texts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cluster.tables.tables import I64


@dataclass(frozen=True)
class Changes:
    """Counts of what changed; None: what was there before is not known."""

    items_new: int
    items_changed: int
    """With another text."""
    items_gone: int
    items_same: int
    """Their vectors stay."""
    metadata_changed: bool = False
    """Of items whose text is the same, or their order."""
    labels_new: int | None = None
    """Pairs of a query and a relevant item."""
    labels_gone: int | None = None
    labels: int = 0
    queries_new: int | None = None
    queries: int = 0
    drift: float | None = None
    """Mean cosine of the best hit of known queries minus that of new ones, under the live model."""

    @property
    def items(self) -> bool:
        """Whether what is served is not what the data says."""
        return bool(self.items_new or self.items_changed or self.items_gone or self.metadata_changed)

    def as_json(self) -> dict[str, Any]:
        """As `--json` and the history have it."""
        return asdict(self)


def known_rows(ids: pa.Array, texts: pa.Array, old_ids: pa.Array, old_texts: pa.Array) -> tuple[I64, npt.NDArray[np.bool_]]:
    """Where items were before.

    Returns:
        (row of each item among the old ones, -1: it is new; whether its text is the same, so that its vector is).
    """
    rows: I64 = pc.fill_null(pc.index_in(ids, value_set=old_ids), -1).to_numpy(zero_copy_only=False).astype(np.int64)
    same = np.zeros(len(ids), bool)
    there = np.flatnonzero(rows >= 0)
    before, now = old_texts.take(pa.array(rows[there])), texts.take(pa.array(there))
    same[there] = pc.fill_null(pc.equal(before.cast(pa.large_string()), now.cast(pa.large_string())), False).to_numpy(
        zero_copy_only=False
    )
    return rows, same


def item_counts(rows: I64, same: npt.NDArray[np.bool_], old_items: int) -> dict[str, int]:
    """The counts of items. Args: rows, same: as `known_rows` gives."""
    known = rows >= 0
    return {
        "items_new": int((~known).sum()),
        "items_changed": int((known & ~same).sum()),
        "items_gone": old_items - int(known.sum()),
        "items_same": int(same.sum()),
    }


def new_and_gone(now: pa.Array, before: pa.Array) -> tuple[int, int]:
    """How many values are new, and how many gone."""
    now, before = pc.unique(now), pc.unique(before)
    return int(pc.sum(pc.invert(pc.is_in(now, before))).as_py() or 0), int(pc.sum(pc.invert(pc.is_in(before, now))).as_py() or 0)
