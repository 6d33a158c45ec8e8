"""What a person sets about searching and choosing negatives."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

MODEL_CONFIG = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)


def _off(value: Any) -> Any:
    return None if value == "off" else value  # TOML has no null


Off = BeforeValidator(_off)
Share = Annotated[float, Field(gt=0.0, lt=1.0)]


OPPOSITE = {"disjoint": "overlap", "overlap": "disjoint", "equal": "different", "different": "equal"}


class Rule(BaseModel):
    """Keep only candidates whose metadata compare in this way with the query's relevant items."""

    model_config = MODEL_CONFIG

    column: str
    """A metadata column of the corpus, e.g. "genres"."""
    keep: Literal["disjoint", "overlap", "equal", "different"]
    """Columns of lists: disjoint (no value in common with any relevant item, e.g. the nearest of another genre) or overlap.
    Columns of single values: equal or different."""


SourceKind = Literal["model", "baseline", "bm25", "earlier"]
"""Where candidates come from."""


class Source(BaseModel):
    """Where candidates come from."""

    model_config = MODEL_CONFIG

    kind: SourceKind
    """model: the nearest items by the model as it is now. baseline: the nearest by the off-the-shelf model. bm25: by words.
    earlier: the negatives of the round before (the first mined round has none)."""
    share: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of the negatives that come from this source, and the weight of its order. Shares are scaled to add up to 1. What a
    source cannot provide comes from the others."""


class TeacherSettings(BaseModel):
    """A slower, better model that scores the remaining candidates and drops those that look relevant."""

    model_config = MODEL_CONFIG

    model: Annotated[str, Field(min_length=1)]
    """Local folder, s3:// folder or hub name."""
    kind: Literal["cross_encoder", "encoder"] = "cross_encoder"
    """cross_encoder: reads query and item together and scores each pair once per run. encoder: a second embedding model; the
    score is the cosine."""
    max_score: float | None = None
    """Drop candidates that the teacher scores above this (RocketQA: 0.1 of a cross-encoder). Default: no such limit."""
    relative_margin: Annotated[Annotated[float, Field(ge=0.0, lt=1.0)] | None, Off] = 0.05
    """Drop candidates that the teacher scores above s - |s| × margin, where s is its score of the query's relevant item.
    "off": no such limit."""
    depth: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """How many remaining candidates of each query the teacher reads, best first; the others are dropped. Default:
    2 × num_negatives."""
    max_length: Annotated[int, Field(ge=8, le=65_536)] | None = None
    """Maximum tokens of a pair. Default: the model's own limit."""

    @model_validator(mode="after")
    def _cuts_something(self) -> TeacherSettings:
        if self.max_score is None and self.relative_margin is None:
            raise ValueError(
                "mining.teacher has neither max_score nor relative_margin, so it would score pairs and drop none; set one of "
                "them, or remove [mining.teacher]"
            )
        return self


class SearchSettings(BaseModel):
    """How mining searches for the nearest items. Evaluation always searches exactly."""

    model_config = MODEL_CONFIG

    mode: Literal["auto", "exact", "two_stage", "ivf"] = "auto"
    """exact: all inner products, in float32. two_stage: a first pass in 8 bits (CPU) or half precision (GPU), whose best
    items are scored exactly. ivf: only the parts of the corpus that are near each query. auto: exact, unless that takes more
    than half a minute and another mode takes less than half its time, by measured rates."""
    engine: Literal["auto", "faiss", "torch"] = "auto"
    """Library for the exact mode. auto: torch on a GPU, else the faster one in a short trial. The hits are the same."""
    min_recall: Annotated[float, Field(ge=0.0, le=1.0)] = 0.95
    """ivf: minimum recall of the search, measured against exact search on a sample. The search is widened until it is reached."""
    recall_queries: Annotated[int, Field(ge=16, le=65_536)] = 256
    """two_stage, ivf: queries in the sample on which recall is measured."""
    lists: Annotated[int, Field(ge=1, le=1_048_576)] | None = None
    """ivf: number of clusters of the corpus. Default: by the number of items."""
    oversample: Annotated[float, Field(ge=1.0, le=16.0)] = 1.25
    """two_stage, ivf: items that the first pass keeps, as a multiple of num_hits."""


class MiningSettings(BaseModel):
    """How hard negatives are mined."""

    model_config = MODEL_CONFIG

    num_hits: Annotated[int, Field(ge=1, le=65_536)] = 100
    """Nearest items that are candidates of each query (K). Known positives do not count."""
    num_negatives: Annotated[int, Field(ge=1, le=1024)] = 32
    """Negatives kept for each query (N)."""
    sources: tuple[Source, ...] = (Source(kind="model"),)
    """Where candidates come from. The lists of several sources are fused by rank."""
    rules: tuple[Rule, ...] = ()
    """Metadata rules; a candidate must meet all of them."""
    near_duplicate: Annotated[float, Field(gt=0.5, lt=1.0)] | None = None
    """Items whose off-the-shelf vectors have at least this cosine with a relevant item count as its duplicates and are dropped;
    e.g. 0.98. Default: only equal texts are duplicates (case, punctuation and spaces are ignored)."""
    min_score: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None
    """Minimum cosine of a negative and its query."""
    max_score: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None
    """Maximum cosine of a negative and its query."""
    relative_margin: Annotated[Annotated[float, Field(ge=0.0, lt=1.0)] | None, Off] = 0.05
    """Drop candidates that score above s - |s| × margin, where s is the score of the query's relevant item
    (margin_reference); they may be unlabelled positives. 0.05 keeps candidates up to 95 % of s (NV-Retriever's TopK-PercPos).
    "off": no such limit, for labels that are known to be complete."""
    absolute_margin: Annotated[float, Field(ge=0.0, le=2.0)] | None = None
    """Drop candidates that score above s - margin (NV-Retriever's TopK-MarginPos). Default: no such limit."""
    margin_reference: Literal["lowest", "mean", "highest"] = "mean"
    """s of a query with several relevant items: their lowest, mean or highest score. NV-Retriever and sentence-transformers
    use the lowest, which leaves hardly any candidate where a query has many relevant items (docs/mining.md)."""
    target_discard_rate: Share | None = None
    """Instead of relative_margin: use the margin that drops this share of the candidates. A fixed margin drops a different share
    with every model."""
    positive_quantile: Share | None = None
    """Drop candidates that score above this quantile of all relevant items' scores, computed for each model: 0.5 keeps what
    scores below the median relevant item. Default: no such limit."""
    skip_first: Annotated[int, Field(ge=0, le=65_535)] = 0
    """Drop the first candidates of every query, this many."""
    teacher: TeacherSettings | None = None
    """A model that drops remaining candidates that look relevant. Default: none."""
    choose: Literal["top", "uniform", "softmax"] = "top"
    """How negatives are taken from the remaining candidates: the nearest N, N at random, or N at random with weights
    exp(score / choice_temperature)."""
    choice_temperature: Annotated[float, Field(gt=0.0, le=10.0)] = 0.05
    """For choose = "softmax": lower values prefer the nearest candidates. Not the τ of training."""
    max_uses: Annotated[int, Field(ge=1)] | None = None
    """Maximum number of queries that one item may be a negative of. Default: no limit."""
    popularity: str | None = None
    """A number column of the corpus. With it, the random choice weighs an item by its popularity ^ -popularity_power."""
    popularity_power: Annotated[float, Field(ge=-4.0, le=4.0)] = 0.5
    """Above 0, popular items are taken less often; below 0, more often."""
    confusion: str | None = None
    """Metadata column of the report's confusion table (which value is mistaken for which). Default: the first rule's column."""
    samples: Annotated[int, Field(ge=0, le=1000)] = 20
    """Queries that the report shows with the texts of their relevant items and negatives."""
    embedding_dtype: Literal["float32", "float16"] = "float32"
    """How embeddings are stored. Scores are computed in float32, and close ones in float64, either way."""
    embedding_precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """How the model computes when it embeds. auto: float32 on a CPU; on a GPU the precision of training. On a CPU, bfloat16 is
    faster only with AVX512_BF16 or AMX (docs/mining.md). Evaluation uses the same vectors."""
    search: SearchSettings = SearchSettings()
    """How the nearest items are searched."""

    def embeds_in_bfloat16(self, *, gpu: bool, training: str) -> bool:
        """Whether a model embeds in bfloat16. Args: gpu: it runs on one; training: training.precision."""
        if self.embedding_precision == "auto":
            return gpu and training != "float32"
        return self.embedding_precision == "bfloat16"

    @model_validator(mode="after")
    def _sources_agree(self) -> MiningSettings:  # before what counts their candidates
        kinds = [source.kind for source in self.sources]
        if not kinds:
            raise ValueError(
                'mining.sources = [] leaves no source of candidates; take the setting out, or name one: [{ kind = "model" }]'
            )
        if "model" not in kinds or len(kinds) != len(set(kinds)):
            raise ValueError(
                f'mining.sources: expected "model" once, and each of the others at most once, found {", ".join(kinds)}'
            )
        return self

    @model_validator(mode="after")
    def _counts_fit(self) -> MiningSettings:
        if self.num_negatives > self.num_hits:
            raise ValueError(
                f"mining.num_negatives = {self.num_negatives} cannot come from mining.num_hits = "
                f"{self.num_hits} candidates; raise num_hits to at least {4 * self.num_negatives}"
            )
        candidates = self.num_hits * len(self.sources)
        if candidates - self.skip_first < self.num_negatives:
            several = f" of each of {len(self.sources)} sources" if len(self.sources) > 1 else ""
            raise ValueError(
                f"mining.skip_first = {self.skip_first} of mining.num_hits = {self.num_hits}{several} leaves at most "
                f"{max(0, candidates - self.skip_first)} candidates, fewer than mining.num_negatives = {self.num_negatives}; "
                f"raise num_hits, or lower skip_first"
            )
        if self.min_score is not None and self.max_score is not None and self.min_score >= self.max_score:
            raise ValueError(
                f"mining.min_score = {self.min_score} leaves nothing below mining.max_score = {self.max_score}; "
                "exchange or remove one of them"
            )
        if self.teacher is not None and self.teacher.depth is not None and self.teacher.depth < self.num_negatives:
            raise ValueError(
                f"mining.teacher.depth = {self.teacher.depth}: what the teacher does not read is dropped, so fewer than "
                f"mining.num_negatives = {self.num_negatives} negatives can be left; raise depth to {2 * self.num_negatives}"
            )
        return self

    @model_validator(mode="after")
    def _rules_can_be_met(self) -> MiningSettings:
        for rule in self.rules:
            other = next(
                (other for other in self.rules if other.column == rule.column and other.keep == OPPOSITE[rule.keep]), None
            )
            if other is not None:
                raise ValueError(
                    f'mining.rules: no candidate can be both "{rule.keep}" and "{other.keep}" in column "{rule.column}"; '
                    f"remove one of the two rules"
                )
        return self

    @model_validator(mode="after")
    def _cuts_agree(self) -> MiningSettings:
        if self.popularity is not None and self.choose == "top":
            raise ValueError(
                'mining.popularity weighs a random choice, but mining.choose = "top" takes the nearest; set '
                'choose = "softmax" or "uniform", or limit use with mining.max_uses'
            )
        return self
