"""What a person sets about the model and its training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Kind = Literal["transformer", "adapter", "static", "sequence", "vectors"]
Pooling = Literal["mean", "cls", "last"]
Tracker = Literal["tensorboard", "mlflow", "wandb"]

SYNTHETIC_CAP = 0.2
"""Largest share of an epoch that labels of the source "synthetic" may make up, unless training.label_sources sets another."""
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.001, 1.0
LEARNED_TEMPERATURES = (0.01, 0.2)
"""A learned τ is kept between these. Below, one negative takes the whole softmax; above, all of them weigh alike."""
VALIDATION_QUERIES = 500
"""Maximum dev queries that are validated after each epoch."""
VALIDATION_K = 10
"""Validation after each epoch measures recall at this position, among the validation items."""


class LoraSettings(BaseModel):
    """Train low-rank additions to the linear layers instead of all weights (Hu 2021, arXiv 2106.09685); by peft."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of the added matrices."""
    alpha: Annotated[float, Field(gt=0.0)] = 32.0
    """The added matrices are scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Dropout on the input of the added matrices."""
    targets: list[str] | Literal["all-linear"] = "all-linear"
    """Names of the linear layers that are adapted."""


class GuideSettings(BaseModel):
    """A second encoder that finds candidates as relevant as the positive; they are not used as negatives (GISTEmbed)."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    model: str | None = None
    """Local folder, s3:// folder or hub name. Default: the model that the run starts from."""
    margin: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Candidates that the guide scores above its score of the positive minus this margin are left out of the loss."""


class DistilSettings(BaseModel):
    """Learn the scores that mining's teacher gives a query's relevant item and its mined negatives, beside the loss on labels."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    loss: Literal["kl", "margin_mse"] = "kl"
    """kl: the softmax over the list should be the teacher's. margin_mse: each negative should be as far below the relevant item
    as the teacher has it."""
    weight: Annotated[float, Field(gt=0.0)] = 1.0
    """This loss is multiplied by this, and added to training.loss."""
    temperature: Annotated[float, Field(gt=0.0, le=100.0)] = 0.1
    """The teacher's scores are divided by this, as the model's cosines are by training.temperature. 0.1 is for scores between 0
    and 1; logits need about 1."""


class SourceSettings(BaseModel):
    """How the labels of one source (click, editorial, synthetic …) are used in training."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    weight: Annotated[float, Field(gt=0.0)] = 1.0
    """The loss of its examples is multiplied by this."""
    cap: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Maximum share of an epoch's examples. A source with more examples than that takes different ones in each epoch."""


class EncoderSettings(BaseModel):
    """The model that turns texts (or base vectors) into embeddings."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    kind: Kind = "transformer"
    """transformer: a Hugging Face encoder, all weights are trained. adapter: a small network on frozen base vectors. static: the
    mean of token embeddings, small and fast on a CPU. sequence: a GRU over the items of a query's `history`. vectors: no model,
    the data's `vector` columns are the embeddings (for `hardmine mine` only; nothing is trained)."""
    model: str | None = None
    """Local folder, s3:// folder or hub name. adapter, sequence: the frozen base model; without one, the data's `vector` columns
    are used (of a sequence encoder: the items' only). static: the model to start from; without one, a tokenizer is trained on
    the corpus and the weights start random."""
    pooling: Pooling | None = None
    """How a text's token vectors become one vector. Default: what the model's folder says, else last for a causal
    language model and mean for others."""
    query_prompt: str | None = None
    """Text put before every query. Default: the model's own "query" prompt."""
    item_prompt: str | None = None
    """Text put before every item. Default: the model's own "document" prompt."""
    max_length: Annotated[int, Field(ge=4, le=65_536)] | None = None
    """Maximum tokens of a text, special tokens included, no more than the model has positions. Default: its own limit.
    sequence: how many of the newest items of a history are kept; default: 200."""
    dimension: Annotated[int, Field(ge=8, le=8192)] = 256
    """Vector length of a new static model. Other models have their own."""
    vocabulary: Annotated[int, Field(ge=256, le=1_000_000)] = 16_000
    """Maximum vocabulary size of a new static model's tokenizer."""
    hidden: Annotated[int, Field(ge=8, le=65_536)] = 512
    """Width of the adapter's hidden layer. sequence: width of the items' hidden layer and of the GRU's state."""
    repeats: bool = False
    """sequence: items of the history may be recommended again (music, groceries). false: they are never hits of that query,
    neither in mining nor in evaluation."""

    @model_validator(mode="after")
    def _model_is_named(self) -> EncoderSettings:
        if self.kind == "transformer" and not self.model:
            raise ValueError(
                'encoder.kind = "transformer" needs encoder.model: a local folder, an s3:// folder, or '
                'a hub name such as "sentence-transformers/all-MiniLM-L6-v2"'
            )
        if self.kind == "vectors" and self.model:
            raise ValueError(
                f'encoder.kind = "vectors" uses the vectors in the data, but encoder.model = "{self.model}" is set too; '
                "remove encoder.model, or choose another kind"
            )
        return self


class TrainingSettings(BaseModel):
    """One round of training."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    """Passes over the training queries in each mined round. One example is a query with one of its relevant items."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 32
    """Queries per rank and micro-step. The items of one query are in-batch negatives of the others."""
    accumulation: Annotated[int, Field(ge=1, le=1024)] = 1
    """Micro-steps per optimizer step. It does not add negatives: only a larger batch_size or more ranks do."""
    hard_negatives: Annotated[int, Field(ge=0, le=1024)] = 7
    """Mined negatives per query and step. Each epoch takes different ones from the query's mined list."""
    random_fraction: Annotated[float, Field(ge=0.0, le=8.0)] = 0.25
    """Random negatives per query and step, as a multiple of hard_negatives. The warm-up round, which has no mined negatives, uses
    random ones in their place, so that every round has equally many."""
    loss: Literal["info_nce", "triplet"] = "info_nce"
    """info_nce: softmax over all candidates (MultipleNegativesRanking with scale = 1 / temperature). triplet: hinge loss."""
    temperature: Annotated[float, Field(ge=LOWEST_TEMPERATURE, le=HIGHEST_TEMPERATURE)] = 0.05
    """τ of InfoNCE: cosines are divided by it. A learned τ starts here."""
    learn_temperature: bool = False
    """Learn τ together with the model, between 0.01 and 0.2."""
    margin: Annotated[float, Field(ge=0.0, le=2.0)] = 0.2
    """Triplet loss: the positive should score this much higher than every negative (cosine)."""
    symmetric: bool = False
    """Add the other direction: each positive must also find its query among all queries of the batch. The loss is the mean of
    both."""
    in_batch: bool = True
    """Use the items of the other queries in the batch as negatives."""
    gather: bool = True
    """Use the items of the other ranks as in-batch negatives."""
    false_negative_margin: Annotated[float, Field(ge=-1.0, le=2.0)] | None = None
    """Leave out negatives whose cosine is higher than the positive's by more than this; they are probably unlabelled positives.
    Default: keep all."""
    guide: GuideSettings | None = None
    """A second encoder that leaves out unlabelled positives. Default: none."""
    distil: DistilSettings | None = None
    """Distillation from [mining.teacher]; mined rounds only. Default: none."""
    matryoshka: list[Annotated[int, Field(ge=1)]] = []
    """Also train the first dimensions alone, at each of these lengths. The loss is the mean over them and the full length."""
    grad_cache: bool = False
    """GradCache: encode each step twice and keep the activations of one micro-batch at a time. A batch of any size then needs
    the memory of one micro-batch, with the same gradient, at the cost of one more forward pass."""
    random_popularity: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Draw random negatives in proportion to (times the item is a positive + 1) ^ this power. 0: every item equally often."""
    label_sources: dict[str, SourceSettings] = {}
    """Weight and cap of the labels of each `source`. "synthetic" has a cap of 0.2 unless it is set here."""
    one_source_per_batch: bool = False
    """Take all examples of a step from one label source."""
    lora: LoraSettings | None = None
    """Train low-rank matrices instead of all weights. They are merged into the model that is kept. Transformers only."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Peak learning rate. Default: transformer 2e-5 (with LoRA 1e-4), adapter and sequence 1e-3, static 1e-2."""
    weight_decay: Annotated[float, Field(ge=0.0, le=10.0)] = 0.01
    """Weight decay of AdamW, of matrices only. An adapter is pulled back to the vectors that it starts from: with 1 to 10 it
    stays near them, however many epochs it is trained."""
    warmup_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Share of the steps in which the learning rate rises linearly. After that it falls to 0 as a cosine."""
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Maximum optimizer steps of a round. Default: as many as the epochs have."""
    gradient_clipping: Annotated[float, Field(ge=0.0)] = 1.0
    """Maximum gradient norm; larger gradients are scaled down to it. 0: no clipping."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: bfloat16 on a GPU that supports it, else float32. float16 uses dynamic loss scaling."""
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 1
    """DeepSpeed ZeRO. 0: every rank holds everything. 1: optimizer states are split over ranks. 2: gradients too. 3: weights
    too."""
    offload_optimizer: bool = False
    """Keep optimizer states in CPU memory (ZeRO 1 to 3)."""
    activation_checkpointing: bool = False
    """Recompute a transformer's activations in the backward pass instead of keeping them."""
    deepspeed: str | None = None
    """Path of a DeepSpeed JSON file to merge with these settings. A value that contradicts them is refused."""
    checkpoint_steps: Annotated[int, Field(ge=1)] | None = None
    """Write a checkpoint every so many optimizer steps. Default: only after each epoch."""
    trackers: list[Tracker] = []
    """Experiment trackers that receive the figures of telemetry.jsonl. Each needs its package."""
    patience: Annotated[int, Field(ge=1)] = 3
    """Stop a round's training after this many epochs without a better validation recall."""

    @model_validator(mode="after")
    def _loss_is_consistent(self) -> TrainingSettings:
        low, high = LEARNED_TEMPERATURES
        if self.learn_temperature and not low <= self.temperature <= high:
            raise ValueError(
                f"training.temperature = {self.temperature}: a learned temperature stays between {low} and {high}; start it "
                "there, or set training.learn_temperature = false"
            )
        if self.learn_temperature and self.loss == "triplet":
            raise ValueError(
                "training.learn_temperature = true, but the triplet loss has no temperature; set it to false, or set "
                'training.loss = "info_nce"'
            )
        if self.symmetric and not self.in_batch:
            raise ValueError(
                "training.symmetric = true compares each positive with the other queries of the batch, but training.in_batch = "
                "false leaves those out; set symmetric = false or in_batch = true"
            )
        if not self.in_batch and not self.hard_negatives:
            raise ValueError(
                "training.in_batch = false and training.hard_negatives = 0 leave no negatives at all (random ones are a multiple "
                "of hard_negatives); set in_batch = true, or hard_negatives to 1 or more"
            )
        if self.offload_optimizer and not self.zero_stage:
            raise ValueError("training.offload_optimizer = true needs training.zero_stage = 1, 2 or 3, found 0")
        return self

    def source(self, name: str) -> SourceSettings:
        """How the labels of a source are used."""
        default = SourceSettings(cap=SYNTHETIC_CAP) if name == "synthetic" else SourceSettings()
        return self.label_sources.get(name, default)

    def peak_learning_rate(self, kind: Kind) -> float:
        """The learning rate after warm-up."""
        defaults = {"transformer": 1e-4 if self.lora else 2e-5, "adapter": 1e-3, "static": 1e-2, "sequence": 1e-3}
        return self.learning_rate if self.learning_rate is not None else defaults[kind]

    def random_negatives(self, *, mined: bool) -> int:
        """Random negatives per query in a mined round, or in one with random negatives only (same total)."""
        extra = round(self.hard_negatives * self.random_fraction)
        return extra if mined else extra + self.hard_negatives
