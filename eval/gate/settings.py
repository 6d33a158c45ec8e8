"""What a person sets about shipping a model: `[evaluation.gate]`. A setting adds a check or changes its threshold."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from eval.metrics import DEFAULT_KS, MAP_CUT, MRR_CUT, NDCG_CUT

MODEL_CONFIG = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)
METRICS = (
    *(f"{kind}@{k}" for kind in ("recall", "hit") for k in DEFAULT_KS),
    f"ndcg@{NDCG_CUT}",
    f"mrr@{MRR_CUT}",
    f"map@{MAP_CUT}",
    "bad_top1",
)
"""What an evaluation measures; those cut above evaluation.num_hits are left out."""

Off = BeforeValidator(lambda value: None if value == "off" else value)  # TOML has no null
Share = Annotated[Annotated[float, Field(ge=0.0, le=1.0)] | None, Off]
Points = Annotated[Annotated[float, Field(ge=-100.0, le=100.0)] | None, Off]
Size = Annotated[Annotated[float, Field(ge=0.0)] | None, Off]


class MetricGate(BaseModel):
    """Thresholds of one metric."""

    model_config = MODEL_CONFIG

    min: Share = None
    """Minimum of the figure."""
    max: Share = None
    """Maximum of the figure."""
    min_gain: Points = None
    """Minimum gain over the off-the-shelf model, in percentage points; of bad_top1 the fall."""

    @model_validator(mode="after")
    def _has_a_threshold(self) -> MetricGate:
        if self.min is None and self.max is None and self.min_gain is None:
            raise ValueError(
                "evaluation.gate.metrics: expected a threshold for each metric that is named, found one with none; "
                "set its min, max or min_gain"
            )
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(
                f"evaluation.gate.metrics: expected min <= max, found min = {self.min} and max = {self.max}, which no "
                f"figure can meet"
            )
        return self


BARS: dict[str, dict[str, MetricGate]] = {
    "gain": {},
    "mature_catalogue": {"recall@3": MetricGate(min=0.80), "ndcg@10": MetricGate(min=0.78), "bad_top1": MetricGate(max=0.08)},
}
"""evaluation.gate.bar -> the figures that a model must reach, whatever it started from."""


class GateSettings(BaseModel):
    """When a model may be shipped. "off" switches a check off; the answer then says that it was not made."""

    model_config = MODEL_CONFIG

    bar: Literal["gain", "mature_catalogue"] = "gain"
    """gain: the model must be better than the off-the-shelf one, by `min_gain`, and no figure significantly worse.
    mature_catalogue: it must also reach the bar of a mature catalogue search, which has few and complete labels per query:
    Recall@3 of at least 0.80, NDCG@10 of at least 0.78, at most 8 % of the first results wrong."""
    min_gain: Points = 0.0
    """Minimum gain of the primary figure over the off-the-shelf model, in percentage points."""
    metrics: dict[str, MetricGate] = {}
    """Further thresholds, by metric, e.g. { "mrr@10" = { min = 0.7, min_gain = 2.0 } }. They hold beside those of `bar`. A
    metric with a min_gain of its own may fall that far, significantly or not."""
    max_added_ms: Size = 2.0
    """Maximum of what encoding a query (one at a time, tokenising included, median) takes longer than off the shelf, in
    milliseconds."""
    max_added_p95: Size = 0.20
    """Maximum growth of the 95th percentile of that time, as a share of the off-the-shelf model's."""
    max_popularity_gain: Points = 10.0
    """Maximum rise of the popularity of the first ten results (as a percentile of the corpus), in percentage points, above that
    of the off-the-shelf model's or of the relevant items, whichever is higher."""
    min_coverage: Size = 0.7
    """Minimum share of the corpus that is among anyone's first ten results, relative to the off-the-shelf model's."""
    max_gini_gain: Points = 15.0
    """Maximum rise of the Gini coefficient of how often items are shown, in percentage points."""
    slices: bool = True
    """No slice of at least 50 queries may be significantly worse than off the shelf (corrected for their number)."""
    min_slice: Share = None
    """Minimum of the primary figure of every such slice."""
    max_forgetting: Points = 2.0
    """Maximum fall of the primary figure on the general set, where there is one, in percentage points."""
    require_significance: bool = False
    """A check that is inconclusive fails: its interval crosses the threshold, or its gain is not significant."""
    strict: bool = False
    """A check whose figures are missing does not pass; one that is off, or that the data cannot have, is left aside."""

    @field_validator("metrics")
    @classmethod
    def _metrics_exist(cls, metrics: dict[str, MetricGate]) -> dict[str, MetricGate]:
        unknown = [name for name in metrics if name not in METRICS]
        if unknown:
            raise ValueError(
                f"evaluation.gate.metrics names {unknown[0]!r}, which no evaluation measures; expected one of "
                f"{', '.join(METRICS)}"
            )
        return metrics
