"""[evaluation] as a run has it: how a model is measured (eval's own), on what else, and which lines are logged."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from eval.settings import EvaluationSettings
from jobs.config.data import GeneralSettings


class EventSettings(BaseModel):
    """One JSON line for every evaluated query, in files below the run's events/."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    k: Annotated[int, Field(ge=1, le=100)] = 10
    """Results in each line."""
    max_mib: Annotated[float, Field(gt=0.0, le=1024.0)] = 64.0
    """Size of a file, before gzip, at which the next one is begun."""
    keep: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Files kept in a run; the oldest go first."""
    gzip: bool = False
    """Files end in .jsonl.gz."""


def _switch(value: Any) -> Any:
    """`events = true` is the section with its defaults, `events = false` is none."""
    if isinstance(value, bool):
        return {} if value else None
    return value


class RunEvaluation(EvaluationSettings):
    """How a model is measured, and what is left of it."""

    general: GeneralSettings | None = None
    """A general data set that watches for forgetting: corpus, queries and qrels, or folder, as in [data]. It is measured for
    the off-the-shelf model and each round, all labelled queries whatever their split, and nothing is trained on it."""
    events: Annotated[EventSettings | None, BeforeValidator(_switch)] = None
    """true, or a section: write a `retrieval_eval` line for each evaluated query. The lines hold the queries' texts."""

    @model_validator(mode="after")
    def _events_have_their_hits(self) -> RunEvaluation:
        if self.events is not None and self.events.k > self.num_hits:
            raise ValueError(
                f"evaluation.events.k = {self.events.k} results cannot come from evaluation.num_hits = "
                f"{self.num_hits}; raise the latter"
            )
        return self
