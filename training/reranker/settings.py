"""What a person sets about the re-ranker: `[reranker]`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from training.settings import LoraSettings


class RerankerSettings(BaseModel):
    """A cross-encoder that is trained on the run's negatives and measured behind its retrievers."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    model: Annotated[str, Field(min_length=1)]
    """Local folder, s3:// folder or hub name: a cross-encoder, or an encoder that gets a new head."""
    loss: Literal["bce", "lambda", "listnet", "margin_mse"] = "bce"
    """What is minimised."""
    epochs: Annotated[int, Field(ge=1, le=1000)] = 2
    """Passes over the training queries."""
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 16
    """Queries per rank and micro-step, each with its list of items."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 2e-5
    """Peak learning rate."""
    hard_negatives: Annotated[int, Field(ge=0, le=1024)] = 7
    """Mined negatives per query and step."""
    random_negatives: Annotated[int, Field(ge=0, le=1024)] = 2
    """Random negatives per query and step."""
    max_length: Annotated[int, Field(ge=8, le=65_536)] | None = None
    """Maximum tokens of a pair. Default: 512, or the model's own limit where that is lower."""
    lora: LoraSettings | None = None
    """Train low-rank matrices instead of all weights."""
