"""What a person sets about searching and choosing negatives."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _off(value: Any) -> Any:
    return None if value == "off" else value  # TOML has no null


Off = BeforeValidator(_off)


class Rule(BaseModel):
    """Keep only candidates that stand in this relation to the query's relevant items."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    column: str
    """A metadata column of the corpus, e.g. "genres"."""
    keep: Literal["disjoint", "overlap", "equal", "different"]
    """Lists: disjoint (no value in common with any relevant item: nearest off-genre) or overlap. Scalars: equal or
    different."""


class MiningSettings(BaseModel):
    """How negatives are found."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    num_hits: Annotated[int, Field(ge=1, le=2048)] = 100
    """Nearest items looked at for each query (K)."""
    num_negatives: Annotated[int, Field(ge=1, le=1024)] = 32
    """Negatives kept for each query (N)."""
    rules: tuple[Rule, ...] = ()
    """Attribute rules; all must hold."""
    min_score: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None
    """Least cosine of a negative to its query."""
    max_score: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None
    """Most cosine of a negative to its query."""
    relative_margin: Annotated[Annotated[float, Field(ge=0.0, lt=1.0)] | None, Off] = 0.05
    """Drop a candidate that scores above s - |s| × margin, s the lowest score among the query's relevant items: it may
    be an unlabelled positive. 0.05 keeps up to 95 % of s (NV-Retriever's TopK-PercPos); "off": no such cut, for labels
    that are known to be complete."""
    skip_first: Annotated[int, Field(ge=0, le=2048)] = 0
    """Drop this many best positions of every query."""
    choose: Literal["top", "uniform"] = "top"
    """Of the candidates that are left: the nearest N, or N at random."""
    low_hit_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.10
    """Warn when less than this share of the candidates is left."""
    embedding_dtype: Literal["float32", "float16"] = "float32"
    """How embeddings are stored; scores are computed in float32 and settled in float64 either way."""
    engine: Literal["auto", "faiss", "torch"] = "auto"
    """auto: torch on a GPU, FAISS on a CPU. The hits are the same."""

    @model_validator(mode="after")
    def _counts_fit(self) -> MiningSettings:
        if self.num_negatives > self.num_hits:
            raise ValueError(f"mining.num_negatives = {self.num_negatives} cannot come from mining.num_hits = "
                             f"{self.num_hits} candidates; raise num_hits to at least {4 * self.num_negatives}")
        if self.skip_first >= self.num_hits:
            raise ValueError(f"mining.skip_first = {self.skip_first} skips all of mining.num_hits = {self.num_hits}")
        if self.min_score is not None and self.max_score is not None and self.min_score >= self.max_score:
            raise ValueError(f"mining.min_score = {self.min_score} leaves nothing below mining.max_score = "
                             f"{self.max_score}")
        return self
