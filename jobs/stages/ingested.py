"""What stage 0 leaves, as later stages read it."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.commits import Commit
from cluster.tables import Part


@dataclass(frozen=True)
class Ingested:
    """What later stages read."""

    tables: Commit
    base: Commit
    tokens: Commit | None
    """None: the data has vectors, nothing is tokenised."""
    dimension: int | None
    """Length of the data's own vectors; None: it has none."""

    @property
    def corpus(self) -> list[Part]:
        """Corpus table."""
        return self.tables.parts("corpus")

    @property
    def queries(self) -> list[Part]:
        """Query table."""
        return self.tables.parts("queries")

    @property
    def labels(self) -> list[Part]:
        """Label table."""
        return self.tables.parts("labels")
