"""Attribute rules: how a candidate's metadata stands to that of the query's relevant items.

Q queries, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import ConfigError
from cluster.labels import Labels, gather_csr
from cluster.tables import I64, lists_to_csr
from mining.settings import Rule

Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Attribute:
    """One metadata column as value codes: a list per item; scalars are lists of one, nulls of none."""

    offsets: I64
    codes: I64

    @classmethod
    def from_column(cls, column: pa.ChunkedArray) -> Attribute:
        """Encode a column of lists or scalars."""
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            offsets, _ = lists_to_csr(column)
            values = pc.list_flatten(column)
        else:
            offsets, values = np.arange(len(column) + 1, dtype=np.int64), column
        # codes are only compared; a null, on its own or in a list, is no value
        codes = values.combine_chunks().dictionary_encode().indices
        valid = codes.is_valid().to_numpy(zero_copy_only=False)
        counted = np.concatenate([np.zeros(1, np.int64), np.cumsum(valid)])
        return cls(counted[offsets], codes.drop_null().to_numpy().astype(np.int64))

    def overlap(self, owner_rows: tuple[I64, I64], items_QK: I64) -> Bool:
        """[Q, K]: whether a candidate shares a value with any of its query's items.

        Args:
            owner_rows: (query position, item row) pairs of the items that each query is compared with.
        """
        owner, rows = owner_rows
        of_pair, index = gather_csr(self.offsets, rows)
        flat = np.maximum(items_QK.ravel(), 0)
        of_candidate, candidate_index = gather_csr(self.offsets, flat)
        width = items_QK.shape[1]
        # one column of values per candidate value; a candidate overlaps if any of its values is known for its query
        hit = _known(owner[of_pair], self.codes[index], of_candidate // max(1, width), self.codes[candidate_index])
        count = np.bincount(of_candidate[hit], minlength=len(flat))
        return (count > 0).reshape(items_QK.shape) & (items_QK >= 0)


def _known(owner: I64, codes: I64, asked_owner: I64, asked_codes: I64) -> Bool:
    """Whether (asked_owner, asked_codes) is among the (owner, codes) pairs."""
    if not len(codes):
        return np.zeros(len(asked_codes), bool)
    width = np.int64(max(codes.max(), asked_codes.max(initial=0)) + 1)
    result: Bool = np.isin(asked_owner * width + asked_codes, owner * width + codes)
    return result


def rule_mask(rule: Rule, attribute: Attribute, labels: Labels, query_rows: I64, items_QK: I64) -> Bool:
    """[Q, K]: True where the candidate breaks the rule.

    An item without a value shares none. A query whose relevant items have no value keeps every candidate under
    `disjoint` and `different`, and none under `overlap` and `equal`.
    """
    offsets, rows = labels.positives(query_rows)
    owner = np.repeat(np.arange(len(query_rows)), np.diff(offsets))
    overlap = attribute.overlap((owner, rows), items_QK)
    return overlap if rule.keep in ("disjoint", "different") else ~overlap


def check_rules(rules: Sequence[Rule], schema: pa.Schema) -> None:
    """Raises ConfigError: a rule names a column that the corpus lacks, or compares lists as scalars."""
    for number, rule in enumerate(rules):
        if rule.column not in schema.names:
            known = [name for name in schema.names if name not in {"row", "text_code", "group_code", "vector"}]
            raise ConfigError(f"mining.rules[{number}].column: the corpus has no column {rule.column!r}; it has "
                              f"{', '.join(known)}")
        kind = schema.field(rule.column).type
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        if is_list and rule.keep in ("equal", "different"):
            raise ConfigError(f"mining.rules[{number}]: column {rule.column!r} holds lists, which are compared with "
                              f"keep = \"disjoint\" or \"overlap\", not {rule.keep!r}")
