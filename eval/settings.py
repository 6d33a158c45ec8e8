"""What a person sets about figures and decisions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from eval.gate.settings import GateSettings


class EvaluationSettings(BaseModel):
    """How a model is measured."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    split: Literal["dev", "test"] = "dev"
    """dev decides about epochs, rounds and the model that is kept. test: at the end, measure the off-the-shelf model, the
    kept one and the random arm on the test split as well: one last look, which changes nothing before it."""
    num_hits: Annotated[int, Field(ge=10, le=2048)] = 100
    """Items retrieved for each query; recall@100 needs 100."""
    primary: Literal["recall@1", "recall@3", "recall@5", "recall@10", "hit@1", "hit@5", "hit@10", "ndcg@10", "mrr@10"] = (
        "recall@3"
    )
    """The figure that decides whether a round was better."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Of the paired bootstrap intervals."""
    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = 10_000
    """Of the paired bootstrap."""
    bad_top1_column: str | None = None
    """A first result that is not relevant counts as bad only if it shares no value of this column with a relevant item.
    Default: the column of the first mining rule, if there is one, else every irrelevant first result is bad."""
    slices: tuple[str, ...] | None = None
    """Columns whose values are measured one by one: of the queries, of the items (a query belongs to the values of its
    relevant items; "item.NAME" where queries have NAME too), "source" of the labels, or "seen_in_training": whether a
    relevant item is one of a training query, too. []: none. Default: every column of texts or yes/no with 2 to 50 values."""
    min_slice_queries: Annotated[int, Field(ge=2, le=1_000_000)] = 10
    """Queries that a slice must have; values of fewer are counted, not shown."""
    gate: GateSettings = GateSettings()
    """When a model may be shipped."""

    @model_validator(mode="after")
    def _gate_has_its_hits(self) -> EvaluationSettings:
        for name in self.gate.metrics:
            depth = name.partition("@")[2]
            if depth and int(depth) > self.num_hits:
                raise ValueError(
                    f"evaluation.gate.metrics names {name!r}, which evaluation.num_hits = {self.num_hits} results cannot give; "
                    f"raise the latter"
                )
        return self
