"""Filters on the items' metadata: `genre=crime`, `year>=1990`. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import ConfigError

Mask = npt.NDArray[np.bool_]
SIGNS = {"!=": "not_equal", ">=": "greater_equal", "<=": "less_equal", "=": "equal", ">": "greater", "<": "less"}
"""A sign -> the function of pyarrow.compute."""
PATTERN = re.compile(r"\s*([^=!<>]+?)\s*(!=|>=|<=|=|>|<)\s*(.*?)\s*")


@dataclass(frozen=True)
class Where:
    """One condition on a column of the items."""

    column: str
    sign: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Where:
        """From "genre=crime". Raises ConfigError: it is no condition."""
        parts = PATTERN.fullmatch(text)
        if parts is None:
            raise ConfigError(
                f"--where {text!r}: expected a column, a sign ({', '.join(SIGNS)}) and a value, for example genre=crime or "
                f"year>=1990"
            )
        return cls(*parts.groups())

    def mask(self, items: pa.Table) -> Mask:
        """[N] the items for which it holds. Of a list, one value is enough; an item without a value never fits.

        Raises:
            ConfigError: no such column, or a value of another type.
        """
        if self.column not in items.column_names:
            raise ConfigError(
                f"--where {self}: expected a column of the items, found {self.column!r}; they have "
                f"{', '.join(items.column_names)}"
            )
        column = items[self.column].combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks)
        if not pa.types.is_list(column.type) and not pa.types.is_large_list(column.type):
            return self._compare(column)
        hits = np.zeros(len(column), bool)
        owners = pc.list_parent_indices(column).to_numpy()
        positive = Where(self.column, "=", self.value) if self.sign == "!=" else self
        hits[owners[positive._compare(column.flatten())]] = True
        return ~hits & column.is_valid().to_numpy(False) if self.sign == "!=" else hits

    def _compare(self, column: pa.Array) -> Mask:
        kind = column.type
        if pa.types.is_dictionary(kind):
            column, kind = column.cast(kind.value_type), kind.value_type
        if pa.types.is_null(kind):
            return np.zeros(len(column), bool)
        try:
            value = pa.scalar(self.value).cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ConfigError(f"--where {self}: {self.column} holds {kind}, and {self.value!r} is none") from error
        try:
            fits = getattr(pc, SIGNS[self.sign])(column, value)
        except pa.ArrowNotImplementedError as error:
            raise ConfigError(f"--where {self}: {self.column} holds {kind}, which {self.sign} cannot compare") from error
        mask: Mask = pc.fill_null(fits, False).to_numpy(zero_copy_only=False)
        return mask

    def __str__(self) -> str:
        return f"{self.column}{self.sign}{self.value}"


def mask_of(conditions: Sequence[str], items: pa.Table) -> Mask | None:
    """[N] the items that fit all conditions; None: there is no condition.

    Raises:
        ConfigError: a condition cannot be read, or its column does not exist.
    """
    masks = [Where.parse(text).mask(items) for text in conditions]
    return np.logical_and.reduce(masks) if masks else None
