"""What a person sets about the re-ranker and its training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from training.settings import LoraSettings, TrainingSettings

Loss = Literal["bce", "lambda", "listnet", "margin_mse"]


class RerankerSettings(BaseModel):
    """A model that scores a query with an item and orders what the retriever found.

    Precision, ZeRO, clipping, accumulation, checkpoints, patience and trackers are those of [training].
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    model: Annotated[str, Field(min_length=1)]
    """The model to start from: one of its kind, or any transformer, which then gets a new head. Local folder, s3:// folder or hub
    name."""
    kind: Literal["cross_encoder", "late_interaction"] = "cross_encoder"
    """cross_encoder: reads query and item together. late_interaction (ColBERT): reads them apart, a vector for each token, and
    adds up for each token of the query its highest similarity to a token of the item (MaxSim)."""
    loss: Loss = "bce"
    """bce: each pair is relevant or not, on its own; a grade counts as a share of the highest one. lambda (what late_interaction
    has if nothing is set): order of the list by NDCG (LambdaLoss), for graded labels. listnet: softmax over the list. margin_mse:
    a teacher's differences between pairs."""
    epochs: Annotated[int, Field(ge=1, le=1000)] = 2
    """Passes over the training queries."""
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 16
    """Queries per rank and micro-step, each with its list of items."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 2e-5
    """Peak learning rate."""
    hard_negatives: Annotated[int, Field(ge=0, le=1024)] = 7
    """Mined negatives in a query's list, items judged irrelevant first. Each epoch takes different ones."""
    random_negatives: Annotated[int, Field(ge=0, le=1024)] = 3
    """Random negatives in a query's list. With hard ones alone a re-ranker learns little about items that are plainly wrong."""
    max_length: Annotated[int, Field(ge=8, le=65_536)] | None = None
    """Maximum tokens of a pair (late_interaction: of an item), special tokens included. Default: 512, or what the model has
    positions for if that is less; of a model of late interaction, its own."""
    lora: LoraSettings | None = None
    """Train low-rank matrices and the head instead of all weights. They are merged into the model that is kept."""

    @model_validator(mode="before")
    @classmethod
    def _loss_of_its_kind(cls, values: Any) -> Any:
        late = isinstance(values, dict) and values.get("kind") == "late_interaction"
        return {"loss": "lambda"} | values if late else values

    @model_validator(mode="after")
    def _loss_fits(self) -> RerankerSettings:
        if self.kind == "late_interaction" and self.loss == "bce":
            raise ValueError(
                'reranker.loss = "bce" asks for scores around zero, but those of reranker.kind = "late_interaction" are sums of '
                'similarities, nearly always above; set "lambda", "listnet" or "margin_mse"'
            )
        return self

    @model_validator(mode="after")
    def _has_negatives(self) -> RerankerSettings:
        if not self.hard_negatives and not self.random_negatives:
            raise ValueError(
                "reranker.hard_negatives = 0 and reranker.random_negatives = 0 leave nothing to tell relevant items from; set "
                "one of them to 1 or more"
            )
        return self


def settings_for(training: TrainingSettings, reranker: RerankerSettings) -> TrainingSettings:
    """[training] as it holds for the re-ranker."""
    own: dict[str, Any] = {
        name: getattr(reranker, name) for name in ("epochs", "batch_size", "learning_rate", "hard_negatives", "lora")
    }
    # a cap on the retriever's rounds, and draws of its negatives, are none of the re-ranker's
    return training.model_copy(update=own | {"max_steps": None, "random_popularity": 0.0})
