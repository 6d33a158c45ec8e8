"""What a person sets about the model and its training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Kind = Literal["transformer", "adapter", "static", "sequence", "vectors"]
Pooling = Literal["mean", "cls", "last"]
Tracker = Literal["tensorboard", "mlflow", "wandb"]

SYNTHETIC_CAP = 0.2
"""Largest share of an epoch that labels of the source "synthetic" make up, unless training.sources says another."""


class LoraSettings(BaseModel):
    """Train low-rank additions to the linear layers instead of all weights (Hu 2021, arXiv 2106.09685); by peft."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of the additions."""
    alpha: Annotated[float, Field(gt=0.0)] = 32.0
    """The additions are scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Dropout on what enters the additions."""
    targets: list[str] | Literal["all-linear"] = "all-linear"
    """Names of the layers that get an addition."""


class GuideSettings(BaseModel):
    """A second encoder that says which candidates are as relevant as the positive: they are no negatives (GISTEmbed)."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    model: str | None = None
    """Local folder, s3:// folder or hub name; None: the model that the run starts from."""
    margin: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Candidates above (the guide's score of the positive - margin) are left out of the loss."""
    relative: bool = False
    """The margin is a share of the positive's score instead of an absolute difference."""


class SourceSettings(BaseModel):
    """How the labels of one source (click, editorial, synthetic ...) take part."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    weight: Annotated[float, Field(gt=0.0)] = 1.0
    """Factor on the loss of its examples."""
    cap: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Largest share of an epoch's examples; of a source that has more, other ones are drawn in each epoch."""


class EncoderSettings(BaseModel):
    """The model that turns texts (or base vectors) into embeddings."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    kind: Kind = "transformer"
    """transformer: all weights are trained; adapter: a small network on frozen base vectors; static: mean of token
    embeddings, tiny and fast on CPU; sequence: a GRU over the items of a query's `history`;
    vectors: no model, the data's `vector` columns are the embeddings (only for `hardmine mine`: nothing is trained)."""
    model: str | None = None
    """Local folder, s3:// folder or hub name. adapter, sequence: the frozen base model (None: the data has `vector` columns;
    of a sequence encoder the items only).
    static: a static model to start from (None: a tokenizer is trained on the corpus, weights start random)."""
    pooling: Pooling | None = None
    """How token vectors become one; None: what the model's folder says, else mean."""
    query_prompt: str | None = None
    """Put before every query text; None: the model's own "query" prompt."""
    item_prompt: str | None = None
    """Put before every item text; None: the model's own "document" prompt."""
    max_length: Annotated[int, Field(ge=4, le=65_536)] | None = None
    """Tokens per text, special tokens included; None: the model's own limit. sequence: items kept of a history, the newest;
    None: 200."""
    dimension: Annotated[int, Field(ge=8, le=8192)] = 256
    """Length of a new static model's vectors. Other models bring their own."""
    vocabulary: Annotated[int, Field(ge=256, le=1_000_000)] = 16_000
    """Most tokens of a new static model's tokenizer."""
    hidden: Annotated[int, Field(ge=8, le=65_536)] = 512
    """Width of the adapter's hidden layer; sequence: of the items' hidden layer and of the GRU's state."""
    repeats: bool = False
    """sequence: what is in the history may come again (music, groceries); False: it is no hit of its query, neither in mining
    nor in the figures."""

    @model_validator(mode="after")
    def _model_is_named(self) -> EncoderSettings:
        if self.kind == "transformer" and not self.model:
            raise ValueError(
                'encoder.kind = "transformer" needs encoder.model: a local folder, an s3:// folder, or '
                'a hub name such as "sentence-transformers/all-MiniLM-L6-v2"'
            )
        if self.kind == "vectors" and self.model:
            raise ValueError(
                'encoder.kind = "vectors" takes the data\'s own vectors as they are, so encoder.model has no '
                "place beside it; take one of them out"
            )
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
    loss: Literal["info_nce", "triplet"] = "info_nce"
    """info_nce: softmax over all candidates (MultipleNegativesRanking with scale = 1 / temperature); triplet: hinge."""
    temperature: Annotated[float, Field(ge=0.001, le=1.0)] = 0.05
    """τ of InfoNCE: cosines are divided by it. Of a learned one the start."""
    learn_temperature: bool = False
    """Learn τ with the model."""
    temperature_range: tuple[float, float] = (0.01, 0.2)
    """Between which a learned τ is kept."""
    temperature_learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 0.01
    """Learning rate of log τ."""
    margin: Annotated[float, Field(ge=0.0, le=2.0)] = 0.2
    """Of the triplet loss: by how much, in cosine, a positive should lead every negative."""
    symmetric: bool = False
    """Also let every positive find its query among all queries of the batch; the loss is the mean of both directions."""
    in_batch: bool = True
    """Items of the other queries are negatives too, not only those mined or drawn for the query itself."""
    gather: bool = True
    """Use the other ranks' items as negatives too."""
    false_negative_margin: Annotated[float, Field(ge=-1.0, le=2.0)] | None = None
    """Leave out negatives whose cosine exceeds the positive's by more than this: unlabelled positives; None: keep all."""
    guide: GuideSettings | None = None
    """A second encoder that leaves out unlabelled positives; None: none."""
    matryoshka: list[Annotated[int, Field(ge=1)]] = []
    """Further lengths at which the first dimensions alone must serve; the loss is the mean over them and the whole."""
    grad_cache: bool = False
    """Encode each step twice and keep one micro-batch of activations at a time (GradCache): a batch of any size in the
    memory of one micro-batch, with the same gradient, for one more forward pass."""
    random_popularity: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Random negatives are drawn in proportion to (how often an item is a positive, plus 1) to this power; 0: all alike."""
    sources: dict[str, SourceSettings] = {}
    """Weight and cap by the `source` of a label; "synthetic" has a cap of 0.2 unless it is set here."""
    one_source_per_batch: bool = False
    """Every step takes its examples from one source."""
    lora: LoraSettings | None = None
    """Train low-rank additions instead of all weights; merged into the model that is kept. Only encoder.kind = "transformer"."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Peak learning rate; None: 2e-5 for a transformer, 1e-3 for an adapter, 1e-2 for a static model."""
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01
    """Of AdamW: the share of each weight that a step of learning rate 1 takes away."""
    warmup_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Share of the steps in which the learning rate rises linearly; then it falls as a cosine to 0."""
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Most optimizer steps in one round; None: epochs decide."""
    gradient_clipping: Annotated[float, Field(ge=0.0)] = 1.0
    """Norm to which gradients are clipped; 0: not at all."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: bfloat16 where the GPU has it, else float32. float16 scales the loss as it goes."""
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 1
    """DeepSpeed ZeRO stage: 0 replicate, 1 shard optimizer, 2 and gradients, 3 and weights."""
    offload_optimizer: bool = False
    """Keep the optimizer's state in the host's memory (ZeRO 1 to 3)."""
    activation_checkpointing: bool = False
    """Compute a transformer's activations again in the backward pass instead of keeping them."""
    deepspeed: str | None = None
    """A DeepSpeed JSON file of your own, merged with what these settings say; a contradiction is refused by name."""
    checkpoint_steps: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps between checkpoints, beside the one after every epoch; None: only that one."""
    keep_checkpoints: Annotated[int, Field(ge=1, le=100)] = 1
    """Checkpoints kept while a round trains, the newest; the best model is kept beside them."""
    trackers: list[Tracker] = []
    """Where figures go as well as to telemetry.jsonl; each needs its package."""
    patience: Annotated[int, Field(ge=1)] = 3
    """Epochs without a better validation recall after which a round's training stops."""
    validation_queries: Annotated[int, Field(ge=1)] = 500
    """Most dev queries used for validation after each epoch."""
    validation_items: Annotated[int, Field(ge=10)] = 2000
    """Items validation searches: the dev queries' positives and near misses first, then a random fill."""
    validation_k: Annotated[int, Field(ge=1, le=100)] = 10
    """Validation figure: recall at this position, among the validation items."""

    @model_validator(mode="after")
    def _loss_is_consistent(self) -> TrainingSettings:
        low, high = self.temperature_range
        if not 0.001 <= low < high <= 1.0:
            raise ValueError(
                f"training.temperature_range: expected two numbers with 0.001 <= low < high <= 1, found "
                f"[{low}, {high}]; [0.01, 0.2] is usual"
            )
        if self.learn_temperature and not low <= self.temperature <= high:
            raise ValueError(
                f"training.temperature = {self.temperature} is where a learned temperature starts, but "
                f"training.temperature_range is [{low}, {high}]; move one of them"
            )
        if self.learn_temperature and self.loss == "triplet":
            raise ValueError(
                "training.learn_temperature = true: the triplet loss has no temperature; set it to false, or "
                'training.loss = "info_nce"'
            )
        if self.symmetric and not self.in_batch:
            raise ValueError(
                "training.symmetric = true compares a positive with the other queries of the batch, which "
                "training.in_batch = false leaves out; set one of them otherwise"
            )
        if self.offload_optimizer and not self.zero_stage:
            raise ValueError("training.offload_optimizer = true needs training.zero_stage = 1, 2 or 3, found 0")
        return self

    def source(self, name: str) -> SourceSettings:
        """How the labels of a source take part."""
        default = SourceSettings(cap=SYNTHETIC_CAP) if name == "synthetic" else SourceSettings()
        return self.sources.get(name, default)

    def peak_learning_rate(self, kind: Kind) -> float:
        """The learning rate after warm-up."""
        defaults = {"transformer": 1e-4 if self.lora else 2e-5, "adapter": 1e-3, "static": 1e-2, "sequence": 1e-3}
        return self.learning_rate if self.learning_rate is not None else defaults[kind]

    def random_negatives(self, *, mined: bool) -> int:
        """Random negatives per query in a mined round, or in one with random negatives only (same total)."""
        extra = round(self.hard_negatives * self.random_fraction)
        return extra if mined else extra + self.hard_negatives
