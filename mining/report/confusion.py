"""Which metadata value is taken for which: the values of a query's relevant items against those of its negatives.

Q queries of a block, V values with a row of their own; value V stands for all others, V + 1 for none.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import ConfigError
from cluster.labels.labels import Codes, Labels, gather_csr
from cluster.tables.tables import I64, offsets_of
from mining.settings import MiningSettings

SHOWN = 20
"""Values with a row and a column of their own."""
OTHER, NONE = "(other)", "(none)"


def confusion_column(settings: MiningSettings) -> str | None:
    """The metadata column of the confusion table; None: no table."""
    if settings.confusion is not None:
        return settings.confusion
    return settings.rules[0].column if settings.rules else None


def check_confusion(settings: MiningSettings, schema: pa.Schema) -> None:
    """Raises ConfigError: mining.confusion names a column that the corpus lacks, or one that holds no values."""
    column = settings.confusion
    if column is None:
        return
    if column not in schema.names:
        known = [name for name in schema.names if name not in {"row", "text_code", "group_code", "vector"}]
        raise ConfigError(f"mining.confusion: expected a column of the corpus, found {column!r}; it has {', '.join(known)}")
    kind = schema.field(column).type
    values = kind.value_type if _is_list(kind) else kind
    if pa.types.is_nested(values) or pa.types.is_binary(values):
        raise ConfigError(
            f"mining.confusion: expected a column of texts, numbers or lists of them, found {column!r} of type "
            f"{kind}; name another one"
        )


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


@dataclass(frozen=True)
class Values:
    """A metadata column as values that a person can read: a list per item; a null is no value."""

    offsets: I64
    """[N+1] into codes."""
    codes: Codes
    """Each item's values as numbers of `names`."""
    names: tuple[str, ...]

    @classmethod
    def from_column(cls, column: pa.ChunkedArray) -> Values:
        """The values of a column of lists or scalars."""
        combined = column.combine_chunks()
        if isinstance(combined, pa.ChunkedArray):
            combined = pa.concat_arrays(combined.chunks)
        lengths = np.ones(len(combined), np.int64)
        flat = combined
        if _is_list(combined.type):
            combined = combined.cast(pa.large_list(combined.type.value_type))  # a null of a fixed-size list has values
            lengths = combined.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
            flat = combined.flatten()
        coded = pc.dictionary_encode(flat.cast(pa.string()))
        valid = coded.indices.is_valid().to_numpy(zero_copy_only=False)
        counted = offsets_of(valid)
        offsets = counted[offsets_of(lengths)]
        return cls(offsets, coded.indices.drop_null().to_numpy().astype(np.int32), tuple(coded.dictionary.to_pylist()))


@dataclass(frozen=True)
class Buckets:
    """Which row and column of the table each value belongs to. The same for every block of a run."""

    values: Values
    names: tuple[str, ...]
    """[V] the values shown, most frequent first."""
    bucket_of: I64
    """Value code -> 0 … V."""

    @classmethod
    def most_frequent(cls, values: Values, labels: Labels, shown: int = SHOWN) -> Buckets:
        """The `shown` values that most relevant judgements have; then those that most items have, then by name."""
        items = labels.item_rows[labels.scores > 0]
        _, index = gather_csr(values.offsets, items)
        judged = np.bincount(values.codes[index], minlength=len(values.names)).tolist()
        owned = np.bincount(values.codes, minlength=len(values.names)).tolist()
        order = heapq.nsmallest(
            shown, range(len(values.names)), key=lambda code: (-judged[code], -owned[code], values.names[code])
        )
        bucket_of = np.full(len(values.names), len(order), np.int64)
        bucket_of[order] = np.arange(len(order))
        of_items = replace(values, names=())  # a run's tasks share what follows: the other names are not needed
        return cls(of_items, tuple(values.names[code] for code in order), bucket_of)

    def of(self, owner: I64, items: I64, owners: int) -> I64:
        """[owners, V + 2]: how many of an owner's items have a value in each bucket; an item counts once in each."""
        width = len(self.names) + 2
        lengths = self.values.offsets[items + 1] - self.values.offsets[items]
        item, index = gather_csr(self.values.offsets, items)
        has = np.zeros(len(items) * width, bool)
        has[item * width + self.bucket_of[self.values.codes[index]]] = True
        pairs = np.flatnonzero(has)  # an item with a value twice has it once
        counts = np.bincount(owner[pairs // width] * width + pairs % width, minlength=owners * width)
        without = np.bincount(owner[lengths == 0] * width + width - 1, minlength=owners * width)
        return (counts + without).reshape(owners, width)


def confusion_block(buckets: Buckets, relevant: tuple[I64, I64], negatives: tuple[I64, I64], queries: int) -> I64:
    """[V+2, V+2] counts of one block; they add up over blocks.

    A pair of a query and a negative counts once for each distinct value of the query's relevant items (row) and each
    distinct value of the negative (column). A query without a relevant item counts nowhere.

    Args:
        relevant: (query of the block, item row) of the relevant items.
        negatives: the same of the chosen negatives.
    """
    rows = (buckets.of(*relevant, queries) > 0).astype(np.int64)
    # a query with valued and unvalued relevant items has values: "(none)" is for those that have none at all
    rows[:, -1] &= ~rows[:, :-1].any(axis=1)
    result: I64 = rows.T @ buckets.of(*negatives, queries)
    return result


@dataclass(frozen=True)
class Confusion:
    """The confusion table, as mining.json has it."""

    column: str
    values: list[str]
    counts: list[list[int]]
    """By value of the relevant items (rows) and of the negatives (columns)."""

    @classmethod
    def of(cls, column: str, names: Sequence[str], counts: I64) -> Confusion:
        """The counts of all blocks; a value that no relevant item and no negative has is left out."""
        used = np.flatnonzero(counts.any(axis=1) | counts.any(axis=0))
        every = [*names, OTHER, NONE]
        return cls(column, [every[number] for number in used], counts[np.ix_(used, used)].tolist())
