"""What a person sets about shipping a model: `[evaluation.gate]`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

MODEL_CONFIG = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

Off = BeforeValidator(lambda value: None if value == "off" else value)  # TOML has no null
Share = Annotated[Annotated[float, Field(ge=0.0, le=1.0)] | None, Off]
Points = Annotated[Annotated[float, Field(ge=-100.0, le=100.0)] | None, Off]
Size = Annotated[Annotated[float, Field(ge=0.0)] | None, Off]


class MetricGate(BaseModel):
    """Thresholds of one metric."""

    model_config = MODEL_CONFIG

    min: Share = None
    """The figure must be at least this."""
    max: Share = None
    """The figure must be at most this."""
    min_gain: Points = None
    """Percentage points by which it must be better than the off-the-shelf model's, at least; of bad_top1, lower."""

    @model_validator(mode="after")
    def _has_a_threshold(self) -> MetricGate:
        if self.min is None and self.max is None and self.min_gain is None:
            raise ValueError(
                "evaluation.gate.metrics: expected a threshold for each metric that is named, found one with none; "
                "set its min, max or min_gain"
            )
        return self


class GateSettings(BaseModel):
    """When a model may be shipped. "off" switches a check off."""

    model_config = MODEL_CONFIG

    min_recall_3: Share = 0.80
    """Least Recall@3."""
    min_ndcg_10: Share = 0.78
    """Least NDCG@10."""
    max_bad_top1: Share = 0.08
    """Most queries whose first result is bad, as a share."""
    min_gain: Points = 0.0
    """Least percentage points that the primary figure must be better than the off-the-shelf model's."""
    metrics: dict[str, MetricGate] = {}
    """Thresholds of other metrics, e.g. { "mrr@10" = { min = 0.7, min_gain = 2.0 } }."""
    max_added_ms: Size = 2.0
    """Most milliseconds that encoding a query (batch 1, tokenising included, median) may take longer than off the shelf."""
    max_added_p95: Size = 0.20
    """Most that the 95th percentile of that time may grow, as a share of the off-the-shelf model's."""
    latency_queries: Annotated[int, Field(ge=20, le=10_000)] = 200
    """Queries that both models encode in turns to measure that; fewer where a minute is not enough."""
    max_popularity_gain: Points = 10.0
    """Most percentage points that the popularity of the first ten results (as a percentile of the corpus) may lie above that of
    the off-the-shelf model's and of the relevant items, whichever is higher."""
    min_coverage: Size = 0.7
    """Least share of the corpus that is among anyone's first ten results, relative to the off-the-shelf model's."""
    max_gini_gain: Points = 15.0
    """Most percentage points that the Gini coefficient of how often items are shown may rise."""
    max_similarity_gain: Points = None
    """Most percentage points that the likeness of the results of one query to each other may rise; off, because cosines of two
    models are not on one scale."""
    slices: bool = True
    """No slice of the queries may be significantly worse than off the shelf (corrected for their number)."""
    slice_queries: Annotated[int, Field(ge=1)] = 50
    """Queries that a slice must have for that, at least."""
    min_slice: Share = None
    """Least primary figure of every such slice."""
    max_forgetting: Points = 2.0
    """Most percentage points that the primary figure may fall on the general set, where there is one."""
    require_significance: bool = False
    """A figure whose interval crosses the threshold does not pass."""
    strict: bool = False
    """A check whose figures are missing does not pass."""
    worst: Annotated[int, Field(ge=0, le=1000)] = 20
    """Queries listed that got worse."""
