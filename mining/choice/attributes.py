"""Attribute rules: how a candidate's metadata stands to that of the query's relevant items.

Q queries, K candidates, N items.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import ConfigError
from cluster.labels.labels import Codes, Labels, by_owner, gather_csr, read_only
from cluster.tables.tables import I64, offsets_of
from mining.settings import Rule

Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Attribute:
    """One metadata column as value codes: a list per item; scalars are lists of one, nulls of none."""

    offsets: Codes
    codes: Codes
    signs: npt.NDArray[np.uint64]
    """[N] the item's codes as bits, so that most pairs are settled without looking at their lists."""
    exact: bool
    """There are at most 64 values: the bits are the codes."""

    @classmethod
    def from_column(cls, column: pa.ChunkedArray) -> Attribute:
        """Encode a column of lists (of any kind) or scalars."""
        return cls.from_parts([column])

    @classmethod
    def from_parts(cls, columns: Iterable[pa.ChunkedArray]) -> Attribute:
        """Encode a column part by part: 12 bytes per item and 4 per value, and the different values of each part."""
        lengths, codes, values = [], [], []
        for column in columns:
            some_lengths, coded = _encode(column)
            lengths.append(some_lengths)
            codes.append(coded.indices.drop_null().to_numpy().astype(np.int32))
            values.append(pa.table({"value": coded.dictionary}))
        # codes are only compared: equal values of all parts get the number of the first of them
        number = pa.concat_tables(values, promote_options="permissive")["value"].combine_chunks().dictionary_encode().indices
        of_value = number.fill_null(-1).to_numpy(zero_copy_only=False)  # a null in a dictionary is no item's value
        first = offsets_of(np.array([table.num_rows for table in values]))[:-1]
        kept = np.concatenate([of_value[start + own] for start, own in zip(first, codes, strict=True)])
        offsets: Codes = offsets_of(np.concatenate(lengths))
        if len(kept) <= np.iinfo(np.int32).max:
            offsets = offsets.astype(np.int32)
        from cluster.labels.membership import sign_lists  # numba takes a while to load, and the command line reads this module

        signs = np.empty(len(offsets) - 1, np.uint64)
        sign_lists(read_only(offsets), read_only(kept), signs)
        return cls(offsets, kept, signs, bool(kept.max(initial=0) < 64))

    def overlap(self, owner_rows: tuple[I64, I64], items_QK: I64) -> Bool:
        """[Q, K]: whether a candidate shares a value with any of its query's items.

        Args:
            owner_rows: (query position, item row) pairs of the items that each query is compared with.
        """
        from cluster.labels.membership import mark_lists

        owner, rows = owner_rows
        of_pair, index = gather_csr(self.offsets, rows)
        offsets, values = by_owner(owner[of_pair], self.codes[index], len(items_QK))
        result = np.empty(items_QK.shape, bool)
        own = read_only(self.offsets), read_only(self.codes), read_only(self.signs)
        mark_lists(offsets, values, *own, self.exact, np.ascontiguousarray(items_QK), result)
        return result


def _encode(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.int32], pa.DictionaryArray]:
    """(values of each item [N]; all values, one after another, as numbers of a dictionary). A null, on its own or in a list, is
    no value."""
    offsets, values = np.arange(len(column) + 1, dtype=np.int64), column
    if holds_lists(column.type):
        offsets = offsets_of(pc.list_value_length(column).fill_null(0).to_numpy())
        values = pc.list_flatten(column)
    coded = values.combine_chunks().dictionary_encode()
    valid = offsets_of(coded.indices.is_valid().to_numpy(zero_copy_only=False))
    return np.diff(valid[offsets]).astype(np.int32), coded


def rule_mask(rule: Rule, attribute: Attribute, labels: Labels, query_rows: I64, items_QK: I64) -> Bool:
    """[Q, K]: True where the candidate breaks the rule.

    An item without a value shares none. A query whose relevant items have no value keeps every candidate under
    `disjoint` and `different`, and none under `overlap` and `equal`.
    """
    offsets, rows = labels.positives(query_rows)
    owner = np.repeat(np.arange(len(query_rows)), np.diff(offsets))
    overlap = attribute.overlap((owner, rows), items_QK)
    return overlap if rule.keep in ("disjoint", "different") else ~overlap


def holds_lists(kind: pa.DataType) -> bool:
    """Whether a column of this type has several values per item, however Arrow lays them out."""
    return any(
        test(kind)
        for test in (
            pa.types.is_list,
            pa.types.is_large_list,
            pa.types.is_fixed_size_list,
            pa.types.is_list_view,
            pa.types.is_large_list_view,
        )
    )


def _comparable(kind: pa.DataType) -> bool:
    try:
        pa.array([], kind).dictionary_encode()
    except pa.ArrowNotImplementedError:
        return False
    return True


def check_rules(rules: Sequence[Rule], schema: pa.Schema) -> None:
    """Whether the rules can be followed.

    Raises:
        ConfigError: a rule names a column that the corpus lacks, one without plain values, or compares lists as scalars.
    """
    for number, rule in enumerate(rules):
        if rule.column not in schema.names:
            known = [name for name in schema.names if name not in {"row", "text_code", "group_code", "vector"}]
            raise ConfigError(
                f"mining.rules[{number}].column: the corpus has no column {rule.column!r}; it has {', '.join(known)}"
            )
        kind = schema.field(rule.column).type
        if not _comparable(kind.value_type if holds_lists(kind) else kind):
            raise ConfigError(
                f"mining.rules[{number}]: column {rule.column!r} holds {kind}, whose values cannot be compared; "
                f"expected text, numbers, dates or yes/no, or lists of them"
            )
        if holds_lists(kind) and rule.keep in ("equal", "different"):
            raise ConfigError(
                f"mining.rules[{number}]: column {rule.column!r} holds lists, which are compared with "
                f'keep = "disjoint" or "overlap", not {rule.keep!r}'
            )


def check_popularity(column: str | None, schema: pa.Schema) -> None:
    """Raises ConfigError: mining.popularity names no column of the corpus, or one that holds no numbers."""
    if column is None:
        return
    found = schema.field(column).type if column in schema.names else None
    if found is None or not (pa.types.is_integer(found) or pa.types.is_floating(found)):
        numbers = [field.name for field in schema if pa.types.is_integer(field.type) or pa.types.is_floating(field.type)]
        numbers = [name for name in numbers if name not in {"row", "text_code", "group_code"}]
        raise ConfigError(
            f"mining.popularity: expected a number column of the corpus, found {column!r} "
            f"{f'of type {found}' if found is not None else 'which is none of its columns'}; its number columns "
            f"are {', '.join(numbers) or 'none'}"
        )
