"""What a person sets about the model and its training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Kind = Literal["transformer", "adapter", "static", "vectors"]
Pooling = Literal["mean", "cls", "last"]


class EncoderSettings(BaseModel):
    """The model that turns texts (or base vectors) into embeddings."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    kind: Kind = "transformer"
    """transformer: all weights are trained; adapter: a small network on frozen base vectors; static: mean of token
    embeddings, tiny and fast on CPU; vectors: no model, the data's `vector` columns are the embeddings (only for
    `hardmine mine`: there is nothing to train)."""
    model: str | None = None
    """Local folder, s3:// folder or hub name. adapter: the frozen base model (None: the data has `vector` columns).
    static: a static model to start from (None: a tokenizer is trained on the corpus, weights start random)."""
    pooling: Pooling | None = None
    """How token vectors become one; None: what the model's folder says, else mean."""
    query_prompt: str | None = None
    """Put before every query text; None: the model's own "query" prompt."""
    item_prompt: str | None = None
    """Put before every item text; None: the model's own "document" prompt."""
    max_length: Annotated[int, Field(ge=4, le=65_536)] | None = None
    """Tokens per text, special tokens included; None: the model's own limit."""
    dimension: Annotated[int, Field(ge=8, le=8192)] = 256
    """Length of a new static model's vectors. Other models bring their own."""
    vocabulary: Annotated[int, Field(ge=256, le=1_000_000)] = 16_000
    """Most tokens of a new static model's tokenizer."""
    hidden: Annotated[int, Field(ge=8, le=65_536)] = 512
    """Width of the adapter's hidden layer."""

    @model_validator(mode="after")
    def _model_is_named(self) -> EncoderSettings:
        if self.kind == "transformer" and not self.model:
            raise ValueError("encoder.kind = \"transformer\" needs encoder.model: a local folder, an s3:// folder, or "
                             "a hub name such as \"sentence-transformers/all-MiniLM-L6-v2\"")
        if self.kind == "vectors" and self.model:
            raise ValueError("encoder.kind = \"vectors\" takes the data's own vectors as they are, so encoder.model has no "
                             "place beside it; take one of them out")
        return self


class TrainingSettings(BaseModel):
    """One round of training."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    """Passes over the training queries in each mined round; one example is a query with one of its positives."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 32
    """Queries per rank and micro-step: their items are each other's in-batch negatives."""
    accumulation: Annotated[int, Field(ge=1, le=1024)] = 1
    """Micro-steps per optimizer step. More does not mean more negatives: those come from batch_size and ranks."""
    hard_negatives: Annotated[int, Field(ge=0, le=1024)] = 7
    """Mined negatives per query and step, taken from the query's mined list, others in each epoch."""
    random_fraction: Annotated[float, Field(ge=0.0, le=8.0)] = 0.25
    """Random negatives per query, as a share of hard_negatives. A warm-up uses as many random ones as both together."""
    temperature: Annotated[float, Field(ge=0.001, le=1.0)] = 0.05
    """τ of InfoNCE: cosines are divided by it."""
    gather: bool = True
    """Use the other ranks' items as negatives too."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Peak learning rate; None: 2e-5 for a transformer, 1e-3 for an adapter, 1e-2 for a static model."""
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01
    warmup_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Share of the steps in which the learning rate rises linearly; then it falls as a cosine to 0."""
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Most optimizer steps in one round; None: epochs decide."""
    gradient_clipping: Annotated[float, Field(ge=0.0)] = 1.0
    """Norm to which gradients are clipped; 0: not at all."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 where the GPU has it, else float32."""
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 1
    """DeepSpeed ZeRO stage: 0 replicate, 1 shard optimizer, 2 and gradients, 3 and weights."""
    patience: Annotated[int, Field(ge=1)] = 3
    """Epochs without a better validation recall after which a round's training stops."""
    validation_queries: Annotated[int, Field(ge=1)] = 500
    """Most dev queries used for validation after each epoch."""
    validation_items: Annotated[int, Field(ge=10)] = 2000
    """Items validation searches: the dev queries' positives and near misses first, then a random fill."""
    validation_k: Annotated[int, Field(ge=1, le=100)] = 10
    """Validation figure: recall at this position, among the validation items."""

    def peak_learning_rate(self, kind: Kind) -> float:
        """The learning rate after warm-up."""
        defaults = {"transformer": 2e-5, "adapter": 1e-3, "static": 1e-2}
        return self.learning_rate if self.learning_rate is not None else defaults[kind]

    def random_negatives(self, *, mined: bool) -> int:
        """Random negatives per query in a mined round, or in one with random negatives only (same total)."""
        extra = round(self.hard_negatives * self.random_fraction)
        return extra if mined else extra + self.hard_negatives
