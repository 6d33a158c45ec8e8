"""The settings of `hardmine pairs`: a TOML file given with --config. The defaults are good for UBI logs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cluster.http import http_address
from cluster.session.resources import ClusterSettings
from cluster.storage.settings import StorageSettings
from cluster.storage.store import is_s3
from jobs.config.config import put_override, read_values
from jobs.config.strict import validate
from jobs.pairs.signals import ACTIONS, SIGNALS

Correction = Literal["coec", "ipw", "off"]
Seconds = Annotated[float, Field(ge=0.0, le=86_400.0)]

USED_OF_CLUSTER = {"address", "cpus", "retries"}
COLUMNS = ("query", "query_id", "user", "session", "time", "action", "item", "position", "value", "rating", "shown", "cited")
"""What a column of an own table may mean."""


class SignalSettings(BaseModel):
    """What the actions of users mean."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    actions: dict[str, str] = {}
    """Your action -> the signal that it is: `{ view_long = "dwell", like = "thumbs_up" }`. Actions with usual names are known."""
    weights: dict[str, Annotated[float, Field(ge=0.0, le=10.0)]] = {}
    """Signal -> weight, instead of its default (docs/logs.md). 0: the signal is ignored."""
    liked_from: float = 4.0
    """Lowest rating of an own table that is a `thumbs_up`; half of it or less is a `thumbs_down`."""
    dwell_s: Seconds = 30.0
    """Seconds on a result from which a click counts as `dwell`."""

    @model_validator(mode="after")
    def _signals_are_known(self) -> SignalSettings:
        for setting, names, known in (("actions", self.actions.values(), set(ACTIONS)), ("weights", self.weights, set(SIGNALS))):
            for name in names:
                if name not in known:
                    raise ValueError(f"signals.{setting}: {name!r} is not a signal; known are {', '.join(sorted(known))}")
        return self


class CorpusSettings(BaseModel):
    """The items: for texts of pairs, proposals, and to leave out labels of items that are gone."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    path: str | None = None
    """Items: a file or folder of Parquet, JSONL, CSV or TSV with `id`, `text` and perhaps `title`. Default: none; then there are
    no pairs from items, and labels of unknown items are not left out."""
    query: str = "{title}"
    """What an item is as a query, for co-access pairs and for title–body pairs."""
    templates: tuple[str, ...] = ()
    """Further synthetic queries made of metadata: "{genre} {tone} {themes}"."""
    anchors: str | None = None
    """Column with the ids of items that an item refers to."""
    same: str | None = None
    """Column that a negative of a synthetic query shares with its item ("genre"), while it differs in `different`."""
    different: str | None = None
    """See `same` ("tone"). Co-access positives are drawn from different values of this column in turn."""


class GenerateSettings(BaseModel):
    """A language model that writes queries for items of the corpus."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    url: str | None = None
    """Address of chat completions in OpenAI's form, "http://127.0.0.1:8000/v1/chat/completions". Items' titles and texts and the
    most frequent queries go there. Its key is read from HARDMINE_GENERATOR_KEY. Default: no queries are generated."""
    model: str | None = None
    """Name of the model there."""
    retriever: str | None = None
    """A sentence-transformers model that must find the item again by the query. Default: by words (TF-IDF)."""

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str | None) -> str | None:
        return None if url is None else http_address(url)


class PairsSettings(BaseModel):
    """How logs become labels."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    columns: dict[str, str] = {}
    """Meaning -> your column, for event tables of your own: `{ query = "search_term", item = "product_id" }`. Meanings: query,
    query_id, user, session, time, action, item, position, value (seconds), rating, shown, cited."""
    position_bias: Correction = "coec"
    """coec: clicks over the clicks that are expected at these positions. ipw: each click weighs one over the click rate of its
    position, relative to the first, at most 10. off: positions do not matter."""
    bot_queries: Annotated[int, Field(ge=0)] = 300
    """Queries in a day from which a client is a bot and is left out, as are those who click everything, or of a hundred queries
    nothing. 0: nobody is a bot."""
    held_out: Annotated[float, Field(ge=0.0, le=0.45)] = 0.1
    """Share for dev, and as much for test: of the log's time, the last part of it, and of older texts. 0: nothing is held out.
    Synthetic queries never are."""
    rejected_below: float | None = None
    """A query whose best score is below this is rejected. Default: scores are not looked at."""
    rejected_words: tuple[str, ...] = ()
    """Slang or romanised words; a query with one of them is rejected."""
    signals: SignalSettings = SignalSettings()
    corpus: CorpusSettings = CorpusSettings()
    generate: GenerateSettings = GenerateSettings()
    cluster: ClusterSettings = ClusterSettings()
    storage: StorageSettings = StorageSettings()

    @model_validator(mode="after")
    def _sections_agree(self) -> PairsSettings:
        for name in sorted(self.cluster.model_fields_set - USED_OF_CLUSTER):
            used = ", ".join(sorted(USED_OF_CLUSTER))
            raise ValueError(f"cluster.{name} has no effect on pairs, which uses {used}; take it out")
        for meaning in self.columns:
            if meaning not in COLUMNS:
                raise ValueError(f"columns: {meaning!r} is not a meaning; known are {', '.join(COLUMNS)}")
        if (self.corpus.same is None) != (self.corpus.different is None) and self.corpus.same is not None:
            raise ValueError("corpus.same says what a negative shares, corpus.different in what it differs: set both")
        if (self.generate.url is None) != (self.generate.model is None):
            raise ValueError("generate.url says where queries are generated, generate.model by which model: set both or neither")
        if self.generate.url is not None and self.corpus.path is None:
            raise ValueError("generate.url asks for queries of items: set corpus.path as well")
        return self


def load_settings(path: Path | None, overrides: Sequence[str] = ()) -> PairsSettings:
    """The settings of a TOML file, with `section.key=value` overrides over it. Relative paths count from the file's folder.

    Raises:
        ConfigError: the file is missing or no TOML, or a setting is wrong; names the key.
    """
    values = {} if path is None else read_values(path)
    for override in overrides:
        put_override(values, override)
    settings = validate(PairsSettings, values, source=str(path or "the settings of pairs"))
    items = settings.corpus.path
    if items is None or is_s3(items) or path is None:
        return settings
    absolute = str((path.parent / Path(items).expanduser()).resolve())
    return settings.model_copy(update={"corpus": settings.corpus.model_copy(update={"path": absolute})})
