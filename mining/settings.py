"""What a person sets about searching and choosing negatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from cluster.http import http_address

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
    """A slower, better model that scores the remaining candidates and drops those that look relevant (docs/teachers.md)."""

    model_config = MODEL_CONFIG

    model: Annotated[str, Field(min_length=1)] | None = None
    """Local folder, s3:// folder or hub name; http, llm: the name by which the server knows its model; reranker: the folder of
    another run that is finished. Default: for kind = "reranker" this run's own re-ranker, else it must be given."""
    kind: Literal["cross_encoder", "encoder", "http", "llm", "reranker"] = "cross_encoder"
    """cross_encoder: reads query and item together and scores each pair once per run. encoder: a second embedding model; the
    score is the cosine. http: a server that answers /rerank as Cohere, Jina, text-embeddings-inference, vLLM or Infinity do.
    llm: a language model behind an OpenAI-compatible server, which grades each pair. reranker: the re-ranker that [reranker] of
    this run trains on round 1; it teaches from round 2 on. Or that of another run, which teaches from round 1 on."""
    url: str | None = None
    """http, llm: the whole address that requests go to, e.g. "http://host:8080/rerank", "https://host/v1/chat/completions".
    The key, if it needs one, is read from the environment variable HARDMINE_TEACHER_KEY."""
    requests: Annotated[int, Field(ge=1, le=1024)] = 8
    """http, llm: maximum requests under way at once."""
    rubric: str | None = None
    """llm: a text file that says what each grade means, one line for each: "2: answers the query". Default: grades 0 to 3."""
    max_score: float | None = None
    """Drop candidates that the teacher scores above this (RocketQA: 0.1 of a cross-encoder). Default: no such limit."""
    relative_margin: Annotated[Annotated[float, Field(ge=0.0, lt=1.0)] | None, Off] = 0.05
    """Drop candidates that the teacher scores above s - |s| × margin, where s is its score of the query's relevant item.
    "off": no such limit."""
    depth: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """How many remaining candidates of each query the teacher reads, best first; the others are dropped. Default:
    2 × num_negatives."""
    relabel: float | None = None
    """A dropped candidate that the teacher scores at least this is a relevant item in training, with the source "teacher"
    (training.label_sources has its weight and cap); never in evaluation. Default: none is."""
    weak_positive: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """Leave a query out of training if the teacher scores so many candidates above all its relevant items; the report lists
    such queries. Default: none is left out."""
    max_length: Annotated[int, Field(ge=8, le=65_536)] | None = None
    """cross_encoder, encoder: maximum tokens of a pair. Default: the model's own limit."""

    @property
    def served(self) -> bool:
        """Whether a server has its model."""
        return self.kind in ("http", "llm")

    @property
    def own(self) -> bool:
        """Whether it is the re-ranker that this run trains."""
        return self.kind == "reranker" and self.model is None

    @property
    def folder(self) -> str | None:
        """Where its model lies, or the run that has it; None: a server has it, or this run trains it."""
        return None if self.served else self.model

    def resolved(self, absolute: Callable[[str], str | None], absolute_model: Callable[[str], str | None]) -> TeacherSettings:
        """With an absolute model folder, and the rubric's text in place of its file. Raises ConfigError: the file is none."""
        if self.folder is not None:
            place = absolute if self.kind == "reranker" else absolute_model
            return self.model_copy(update={"model": place(self.folder)})
        if self.rubric is None or "\n" in self.rubric:  # it is the text already
            return self
        from mining.teacher.judge import read_rubric  # loads pyarrow

        return self.model_copy(update={"rubric": read_rubric(str(absolute(self.rubric)))})

    @model_validator(mode="after")
    def _server_is_named(self) -> TeacherSettings:
        if self.model is None and self.kind != "reranker":
            raise ValueError(
                f'mining.teacher.kind = "{self.kind}" needs mining.teacher.model; give one, or set kind = "reranker" for the '
                f"re-ranker that this run trains"
            )
        if self.served == (self.url is None):
            lacks = f'mining.teacher.kind = "{self.kind}" needs mining.teacher.url, the address of its server'
            unread = (
                f'mining.teacher.url = {self.url} is a server, but mining.teacher.kind = "{self.kind}" reads a folder; set '
                f'kind = "http" or "llm", or remove url'
            )
            raise ValueError(lacks if self.url is None else unread)
        try:
            http_address(self.url or "http://none")
        except ValueError as error:
            raise ValueError(f"mining.teacher.url: {error}") from error
        return self


class SearchSettings(BaseModel):
    """How mining searches for the nearest items. Evaluation always searches exactly."""

    model_config = MODEL_CONFIG

    mode: Literal["auto", "exact", "two_stage", "ivf"] = "auto"
    """exact: all inner products, in float32. two_stage: a first pass in 8 bits (CPU) or half precision (GPU), whose best
    items are scored exactly. ivf: only the parts of the corpus that are near each query. auto: exact, unless that takes more
    than half a minute and another mode is at least 20 % faster, by measured rates."""
    engine: Literal["auto", "faiss", "torch"] = "auto"
    """Library for the exact mode. auto: torch on a GPU, else the faster one in a short trial. The hits are the same."""
    min_recall: Annotated[float, Field(ge=0.0, le=1.0)] = 0.95
    """ivf: minimum recall of the search, measured against exact search on a sample. The search is widened until it is reached."""
    lists: Annotated[int, Field(ge=1, le=1_048_576)] | None = None
    """ivf: number of clusters of the corpus. Default: by the number of items."""


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
    choose: Literal["top", "uniform", "softmax", "stratified"] = "top"
    """How negatives are taken from the remaining candidates: the nearest N, N at random, N at random with weights
    exp(score / choice_temperature), or N spread evenly over the teacher's scores, for distillation."""
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
        if self.choose == "stratified" and self.teacher is None:
            raise ValueError('mining.choose = "stratified" spreads over a teacher\'s scores, but there is no [mining.teacher]')
        if self.popularity is not None and self.choose in ("top", "stratified"):
            raise ValueError(
                f'mining.popularity weighs a random choice, but mining.choose = "{self.choose}" takes none at random; set '
                'choose = "softmax" or "uniform", or limit use with mining.max_uses'
            )
        return self
