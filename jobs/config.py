"""The configuration of a run: one tree of sections, read from TOML, with overrides.

Importing this loads no torch, ray, faiss or deepspeed.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cluster.errors import ConfigError
from cluster.resources import ClusterSettings
from cluster.storage import StorageSettings, is_s3
from eval.settings import EvaluationSettings
from mining.settings import MiningSettings
from training.settings import EncoderSettings, TrainingSettings

SECRET_NAMES = ("access_key", "secret", "secret_key", "password", "token", "key")


class DataSettings(BaseModel):
    """Where the queries, items and labels are."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    corpus: str | None = None
    """Items: Parquet file or folder, or JSONL (.jsonl, .jsonl.gz), local or s3://."""
    queries: str | None = None
    """Queries, in the same formats."""
    qrels: str | None = None
    """Labels, in the same formats or TSV (query_id, item_id, score)."""
    folder: str | None = None
    """Instead of the three: a folder in BEIR layout (corpus.jsonl, queries.jsonl, qrels/{train,dev,test}.tsv)."""
    columns: dict[str, str] = {}
    """Our column name -> the name it has in the data, e.g. { group = "franchise" }."""
    item_text: str = "{title} {text}"
    """Template of an item's text over corpus columns; what is missing vanishes with the words before it."""
    query_text: str = "{text}"
    """Template of a query's text over query columns."""
    dev_fraction: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.1
    """Share of the training queries cut off as dev where the data has no dev split."""
    skip_queries_without_positive: bool = False
    """Leave out training queries without a relevant item (they are counted and shown) instead of refusing the data."""

    @model_validator(mode="after")
    def _source_is_complete(self) -> DataSettings:
        tables = {"corpus": self.corpus, "queries": self.queries, "qrels": self.qrels}
        given = [name for name, value in tables.items() if value]
        if self.folder and given:
            raise ValueError(f"data.folder and data.{given[0]} are both set; give either a BEIR folder or the three tables")
        if not self.folder and len(given) < 3:
            missing = [f"data.{name}" for name in tables if name not in given]
            raise ValueError(f"{', '.join(missing)} not set: give corpus, queries and qrels, or data.folder for a folder "
                             f"in BEIR layout")
        return self


class RoundsSettings(BaseModel):
    """The loop."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    warmup_epochs: Annotated[int, Field(ge=0, le=1000)] = 1
    """Epochs of round 0, with random negatives only; 0: mine with the model as it comes."""
    mined: Annotated[int, Field(ge=0, le=100)] = 2
    """Most rounds with mined negatives."""
    patience: Annotated[int, Field(ge=1, le=100)] = 2
    """Stop after this many mined rounds in a row that are not better."""
    compare_random: bool = False
    """Also train an arm with random negatives only, with the same steps, from the same warm-up."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 17
    """Of everything that is drawn."""


class Config(BaseModel):
    """A run."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    """Name of the run: the folder below `output`. Letters, digits, dot, dash, underscore."""
    output: str
    """Local folder or s3:// prefix for runs."""
    data: DataSettings
    encoder: EncoderSettings
    rounds: RoundsSettings = RoundsSettings()
    mining: MiningSettings = MiningSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    cluster: ClusterSettings = ClusterSettings()
    storage: StorageSettings = StorageSettings()

    @model_validator(mode="after")
    def _sections_agree(self) -> Config:
        if self.rounds.warmup_epochs == 0 and self.rounds.mined == 0:
            raise ValueError("rounds.warmup_epochs = 0 and rounds.mined = 0 leave nothing to train; raise one of them")
        if self.rounds.mined and not self.training.hard_negatives:
            raise ValueError("training.hard_negatives = 0 would mine negatives that no step uses; set it to 1 or more, "
                             "or rounds.mined = 0")
        if self.training.hard_negatives > self.mining.num_negatives:
            raise ValueError(f"training.hard_negatives = {self.training.hard_negatives} per step cannot come from "
                             f"mining.num_negatives = {self.mining.num_negatives} per query; raise the latter")
        return self

    @property
    def root(self) -> str:
        """The run's folder."""
        return f"{self.output.rstrip('/')}/{self.name}"


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a TOML file and put `section.key=value` overrides over it. Relative paths count from the file's folder.

    Raises:
        ConfigError: the file is missing or no TOML, or a setting is wrong; names the key, what was expected and found.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"there is no config file {path}; `hardmine demo` needs none, and the README shows one of ten "
                          f"lines") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as a text file ({error})") from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}; texts need quotes (name = \"catalogue\"), sections "
                          f"brackets ([data])") from error
    for override in overrides:
        _override(values, override)
    return parse_config(values, source=str(path), folder=path.parent)


def parse_config(values: dict[str, Any], *, source: str, folder: Path | None = None) -> Config:
    """Validate a tree of values. Raises ConfigError as `load_config`."""
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error, source)) from None
    return _absolute(config, folder) if folder is not None else config


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"expected an override of the form section.key=value, found {override!r}; for example "
                          f"training.epochs=2")
    *sections, name = [part.strip() for part in key.split(".")]
    place: Any = values
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise ConfigError(f"override {override!r}: {section!r} is a value, not a section")
    place[name] = _parse_value(text)


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a bare word is a text: shells eat quotes


def _explain(error: ValidationError, source: str) -> str:
    messages = [_explain_one(item) for item in error.errors()]
    more = f" (and {len(messages) - 3} more)" if len(messages) > 3 else ""
    return f"{source}: " + "; ".join(messages[:3]) + more


def _explain_one(item: Any) -> str:
    location = [str(part) for part in item["loc"]]
    key = ".".join(location)
    if item["type"] == "extra_forbidden":
        return _explain_unknown(location)
    if item["type"] == "missing":
        return f"{key} is required but not set"
    if item["type"] == "value_error":
        return str(item["ctx"]["error"])
    found = item["input"]
    return f"{key}: expected {_lower(item['msg'])}, found {found!r}"


def _lower(message: str) -> str:
    text = message.removeprefix("Input should be ").removeprefix("String should ").removeprefix("Value error, ")
    return text[0].lower() + text[1:]


def _explain_unknown(location: list[str]) -> str:
    key = ".".join(location)
    if any(name in location[-1].lower() for name in SECRET_NAMES) and location[0] in ("storage", "data"):
        return (f"{key}: keys do not belong into a config file; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name "
                f"a profile in storage.profile")
    known = _known_keys(location[:-1])
    close = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(sorted(known))}"
    return f"{key} is not a setting; {hint}"


def _known_keys(location: Sequence[str]) -> list[str]:
    model: Any = Config
    for part in location:
        if part.isdigit() or model is None:
            continue
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        arguments = getattr(annotation, "__args__", ())
        candidates = [annotation, *arguments]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
    return list(model.model_fields) if model is not None else []


def _absolute(config: Config, folder: Path) -> Config:
    """Addresses relative to the config's folder made absolute: workers run elsewhere."""
    def place(value: str | None) -> str | None:
        if value is None or is_s3(value) or "://" in value:
            return value
        path = Path(value).expanduser()
        return str(path if path.is_absolute() else (folder / path).resolve())

    data = config.data.model_copy(update={name: place(getattr(config.data, name))
                                          for name in ("corpus", "queries", "qrels", "folder")})
    model = config.encoder.model
    if model is not None and not is_s3(model) and (folder / model).is_dir():
        model = str((folder / model).resolve())
    encoder = config.encoder.model_copy(update={"model": model})
    return config.model_copy(update={"output": place(config.output), "data": data, "encoder": encoder})
