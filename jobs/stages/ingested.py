"""What stage 0 leaves, as later stages read it."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.commits import Commit
from cluster.tables.tables import Part
from jobs.config.without_effect import reads_texts
from jobs.record.stages import Kind, Scope, Stage
from jobs.stages.context import Context


@dataclass(frozen=True)
class Ingested:
    """A data set and the base model, in the run's own form."""

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
    def codes(self) -> list[Part]:
        """What items have in common, as integers: text_code and group_code, in the order of the corpus."""
        return self.tables.parts("codes")

    @property
    def queries(self) -> list[Part]:
        """Query table."""
        return self.tables.parts("queries")

    @property
    def labels(self) -> list[Part]:
        """Label table."""
        return self.tables.parts("labels")


def read_ingested(context: Context, scope: Scope = Scope.RUN, *, as_sequence: bool = True) -> Ingested:
    """What stages on the data of `scope` read.

    Args:
        as_sequence: for a sequence encoder its untrained model is the base, histories and item rows are the tokens; False:
            the frozen base model and its tokens.
    """
    data = scope if scope in (Scope.GENERAL, Scope.MIX) else Scope.RUN
    tables = context.need(Stage(Kind.INGEST, scope=data))
    dimension = tables.figures["dimension"]
    if context.config.encoder.kind == "sequence" and as_sequence:
        sequence = context.need(Stage(Kind.SEQUENCE))
        return Ingested(tables, sequence, sequence, dimension)
    base = context.need(Stage(Kind.BASE))
    tokens = context.need(Stage(Kind.TOKENS, scope=data)) if reads_texts(context.config) else None
    return Ingested(tables, base, tokens, dimension)
