"""What a person sets about searching and choosing negatives."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

MODEL_CONFIG = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)


def _off(value: Any) -> Any:
    return None if value == "off" else value  # TOML has no null


Off = BeforeValidator(_off)
Share = Annotated[float, Field(gt=0.0, lt=1.0)]


class Rule(BaseModel):
    """Keep only candidates that stand in this relation to the query's relevant items."""

    model_config = MODEL_CONFIG

    column: str
    """A metadata column of the corpus, e.g. "genres"."""
    keep: Literal["disjoint", "overlap", "equal", "different"]
    """Lists: disjoint (no value in common with any relevant item: nearest off-genre) or overlap. Scalars: equal or
    different."""


class Source(BaseModel):
    """Where candidates come from."""

    model_config = MODEL_CONFIG

    kind: Literal["model", "baseline", "bm25", "earlier"]
    """model: the nearest under the model as it is now; baseline: under the off-the-shelf model; bm25: by words;
    earlier: the negatives of the round before (none in the first mined round)."""
    share: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Weight of this source's order, and the share of the negatives that it is to give (shares are made to add up to
    1; what a source cannot give, the others do)."""


class TeacherSettings(BaseModel):
    """A second opinion: a slower, better model that says which survivors are relevant after all."""

    model_config = MODEL_CONFIG

    model: Annotated[str, Field(min_length=1)]
    """Local folder, s3:// folder or hub name."""
    kind: Literal["cross_encoder", "encoder"] = "cross_encoder"
    """cross_encoder: reads query and item together, scores each pair once per run; encoder: a second embedding model,
    scores by cosine."""
    max_score: float | None = None
    """Drop a candidate that the teacher scores above this (RocketQA keeps those below 0.1 of a cross-encoder)."""
    relative_margin: Annotated[Annotated[float, Field(ge=0.0, lt=1.0)] | None, Off] = 0.05
    """Drop a candidate that the teacher scores above s - |s| × margin, s its score of the query's relevant item."""
    depth: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """Survivors of each query that the teacher reads, best first; the others are not taken. None: 2 × num_negatives."""
    batch_pairs: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Pairs that a cross-encoder reads at once."""
    max_length: Annotated[int, Field(ge=8, le=65_536)] | None = None
    """Tokens of a pair; None: the model's own limit."""

    @model_validator(mode="after")
    def _cuts_something(self) -> TeacherSettings:
        if self.max_score is None and self.relative_margin is None:
            raise ValueError(
                "mining.teacher has neither max_score nor relative_margin, so it would score pairs and drop "
                "none; set one of them, or remove [mining.teacher]"
            )
        return self


class SearchSettings(BaseModel):
    """How the nearest items are found when mining. Evaluation always searches exactly."""

    model_config = MODEL_CONFIG

    mode: Literal["auto", "exact", "two_stage", "ivf"] = "auto"
    """exact: every product, float32; two_stage: a first pass in 8 bits (CPU) or half precision (GPU), survivors scored
    exactly; ivf: only the lists of the corpus that are near each query; auto: exact wherever that takes less than
    half a minute or nothing else takes half its time, by measured rates; else the cheapest."""
    engine: Literal["auto", "faiss", "torch"] = "auto"
    """What multiplies in exact mode; auto: torch on a GPU, else what a short probe finds fastest. The hits are the same."""
    min_recall: Annotated[float, Field(ge=0.0, le=1.0)] = 0.95
    """ivf: least recall@K against exact search on a sample of queries; the search is widened until it is reached."""
    recall_queries: Annotated[int, Field(ge=16, le=65_536)] = 256
    """Queries on which recall is measured in two_stage and ivf mode."""
    lists: Annotated[int, Field(ge=1, le=1_048_576)] | None = None
    """ivf: lists that the corpus is cut into; None: from the number of items."""
    oversample: Annotated[float, Field(ge=1.0, le=16.0)] = 1.25
    """two_stage: survivors of the first pass, as a multiple of K."""


class MiningSettings(BaseModel):
    """How negatives are found."""

    model_config = MODEL_CONFIG

    num_hits: Annotated[int, Field(ge=1, le=65_536)] = 100
    """Nearest items looked at for each query (K); known positives do not count."""
    num_negatives: Annotated[int, Field(ge=1, le=1024)] = 32
    """Negatives kept for each query (N)."""
    sources: tuple[Source, ...] = (Source(kind="model"),)
    """Where candidates come from; several are fused by rank."""
    rules: tuple[Rule, ...] = ()
    """Attribute rules; all must hold."""
    near_duplicate: Annotated[float, Field(gt=0.5, lt=1.0)] | None = None
    """Items whose off-the-shelf vectors have at least this cosine with a relevant item count as its duplicates, 0.98
    for instance; None: only equal texts do (case, punctuation and space do not matter)."""
    min_score: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None
    """Least cosine of a negative to its query."""
    max_score: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None
    """Most cosine of a negative to its query."""
    relative_margin: Annotated[Annotated[float, Field(ge=0.0, lt=1.0)] | None, Off] = 0.05
    """Drop a candidate that scores above s - |s| × margin, s the score of the query's relevant item (margin_reference): it
    may be an unlabelled positive. 0.05 keeps up to 95 % of s (NV-Retriever's TopK-PercPos); "off": no such cut, for
    labels that are known to be complete."""
    absolute_margin: Annotated[float, Field(ge=0.0, le=2.0)] | None = None
    """Drop a candidate that scores above s - margin (NV-Retriever's TopK-MarginPos)."""
    margin_reference: Literal["lowest", "mean", "highest"] = "mean"
    """Which of several relevant items of a query is s. The lowest is the rule of NV-Retriever and sentence-transformers, but
    where a query has many, it leaves hardly any candidate (docs/mining.md)."""
    target_discard_rate: Share | None = None
    """Find the relative margin that drops this share of the candidates, in place of relative_margin: a fixed margin means
    something else for every model."""
    positive_quantile: Share | None = None
    """Drop candidates that score above this quantile of all relevant items' scores, found anew for every model: 0.5 keeps
    what scores below the median positive."""
    skip_first: Annotated[int, Field(ge=0, le=65_535)] = 0
    """Drop this many best positions of every query."""
    teacher: TeacherSettings | None = None
    """A model that says which survivors are relevant after all."""
    choose: Literal["top", "uniform", "softmax"] = "top"
    """Of the candidates that are left: the nearest N, N at random, or at random with weights exp(score / temperature)."""
    temperature: Annotated[float, Field(gt=0.0, le=10.0)] = 0.05
    """Of choose = "softmax"."""
    max_uses: Annotated[int, Field(ge=1)] | None = None
    """Most queries whose negative one item may be; None: no limit."""
    popularity: str | None = None
    """A number column of the corpus; with it, random choice weighs an item by its popularity ^ -popularity_power."""
    popularity_power: Annotated[float, Field(ge=-4.0, le=4.0)] = 0.5
    """Above 0, popular items are taken less often; below 0, more often."""
    confusion: str | None = None
    """Metadata column of the report's confusion table (whose value is taken for whose); None: the first rule's column."""
    samples: Annotated[int, Field(ge=0, le=1000)] = 20
    """Queries shown in the report with their relevant items and negatives as text."""
    low_hit_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.10
    """Warn when less than this share of the candidates is left."""
    high_suspected: Annotated[float, Field(ge=0.0, le=1.0)] = 0.10
    """Warn when more than this share of the candidates scores above the query's best relevant item."""
    embedding_dtype: Literal["float32", "float16"] = "float32"
    """How embeddings are stored; scores are computed in float32 and settled in float64 either way."""
    embedding_precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """How the model computes when it embeds; auto: float32 on a CPU, on a GPU what it is trained in. bfloat16 on a CPU
    pays where it has instructions for it (AVX512_BF16, AMX; docs/mining.md); evaluation reads the same vectors."""
    search: SearchSettings = SearchSettings()
    """How the nearest items are found."""

    def embeds_in_bfloat16(self, *, gpu: bool, training: str) -> bool:
        """Whether a model embeds in bfloat16. Args: gpu: it runs on one; training: training.precision."""
        if self.embedding_precision == "auto":
            return gpu and training != "float32"
        return self.embedding_precision == "bfloat16"

    @model_validator(mode="after")
    def _counts_fit(self) -> MiningSettings:
        if self.num_negatives > self.num_hits:
            raise ValueError(
                f"mining.num_negatives = {self.num_negatives} cannot come from mining.num_hits = "
                f"{self.num_hits} candidates; raise num_hits to at least {4 * self.num_negatives}"
            )
        if self.skip_first >= self.num_hits:
            raise ValueError(f"mining.skip_first = {self.skip_first} skips all of mining.num_hits = {self.num_hits}")
        if self.min_score is not None and self.max_score is not None and self.min_score >= self.max_score:
            raise ValueError(f"mining.min_score = {self.min_score} leaves nothing below mining.max_score = {self.max_score}")
        return self

    @model_validator(mode="after")
    def _cuts_agree(self) -> MiningSettings:
        kinds = [source.kind for source in self.sources]
        if "model" not in kinds or len(kinds) != len(set(kinds)):
            raise ValueError(
                f'mining.sources: expected "model" once, and each of the others at most once, found {", ".join(kinds) or "none"}'
            )
        if self.popularity is not None and self.choose == "top":
            raise ValueError(
                'mining.popularity weighs a random choice, but mining.choose = "top" takes the nearest; set '
                'choose = "softmax" or "uniform", or limit use with mining.max_uses'
            )
        return self
