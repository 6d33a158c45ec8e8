"""The configuration of a run: one tree of sections, read from TOML, with overrides.

Importing this loads no torch, ray, faiss or deepspeed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from cluster.errors import ConfigError, one_paragraph
from cluster.session.resources import ClusterSettings
from cluster.storage.settings import StorageSettings
from cluster.storage.store import is_s3
from jobs.config.agreement import contradictions
from jobs.config.data import SOURCES, DatasetSettings, DataSettings
from jobs.config.errors import KEYS_ADVICE
from jobs.config.evaluation import RunEvaluation
from jobs.config.probe import ProbeSettings
from jobs.config.strict import Derived, Origin, validate
from jobs.config.sweep import SweepSettings
from mining.settings import MiningSettings
from training.engine.deepspeed_config import check_deepspeed, read_deepspeed
from training.reranker.settings import RerankerSettings
from training.settings import EncoderSettings, TrainingSettings

D = TypeVar("D", bound=DatasetSettings)
LONGEST_NAME = 255
"""Bytes of a file's name, on every usual disk."""


class RoundsSettings(BaseModel):
    """The loop of mining and training."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    warmup_epochs: Annotated[int, Field(ge=0, le=1000)] = 1
    """Epochs of round 0, which trains with random negatives only. 0: the first round mines with the model as it comes."""
    mined: Annotated[int, Field(ge=0, le=100)] = 2
    """Maximum number of rounds with mined negatives."""
    patience: Annotated[int, Field(ge=1, le=100)] = 2
    """Stop after this many mined rounds in a row without a better model."""
    background: bool = False
    """Mine for the next round while this one trains, with a model that is one round older. The two divide the CPUs or GPUs.
    Short rounds (training.max_steps) keep it recent."""
    merge: list[Annotated[int, Field(ge=1, le=99)]] = []
    """After the last round, also try averages with the model that the run started from (WiSE-FT, LM-Cocktail): these percents of
    the best round's model. They forget less; dev chooses. Each, as of [25, 50, 75], costs an embedding of the corpus."""
    compare_random: bool = False
    """Also train a second model with random negatives only, from the same warm-up and for as many steps, to compare with."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 17
    """Seed of every random choice."""

    @field_validator("merge")
    @classmethod
    def _in_order(cls, shares: list[int]) -> list[int]:
        return sorted(set(shares))  # the order says nothing, so it changes nothing


class Config(BaseModel):
    """A run."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    """Name of the run and of its folder below `output`. Letters, digits, dots, dashes, underscores: at most 100, and a letter or
    a digit first."""
    output: Annotated[str, Field(min_length=1)]
    """Local folder or s3:// prefix below which runs are stored."""
    data: DataSettings
    encoder: EncoderSettings
    rounds: RoundsSettings = RoundsSettings()
    mining: MiningSettings = MiningSettings()
    training: TrainingSettings = TrainingSettings()
    reranker: RerankerSettings | None = None
    """A re-ranker: trained on the negatives of the kept model's round, and measured behind the retrievers. Default: none."""
    evaluation: RunEvaluation = RunEvaluation()
    cluster: ClusterSettings = ClusterSettings()
    storage: StorageSettings = StorageSettings()
    probe: ProbeSettings = ProbeSettings()
    sweep: SweepSettings = SweepSettings()
    _origin = PrivateAttr(cast("Origin | Derived | None", None))

    @property
    def origin(self) -> Origin | None:
        """Where it was read; None: from no file (the demo's, a probe's, a trial's)."""
        return self._origin if isinstance(self._origin, Origin) else None

    @property
    def derived(self) -> bool:
        """Whether it was made from another configuration (a probe's, a trial's), so that nobody sets its settings themselves."""
        return isinstance(self._origin, Derived)

    @model_validator(mode="after")
    def _addresses_are_usable(self) -> Config:
        addresses = {"output": self.output} | self.models
        addresses |= {f"{data.section}.{name}": getattr(data, name) for data in self.datasets for name in SOURCES}
        for key, address in addresses.items():
            if address is not None and not address.strip():
                raise ValueError(f"{key}: expected an address, found {address!r}; give one, or take the setting out")
            if address is not None and max(map(len, address.encode().split(b"/"))) > LONGEST_NAME:
                raise ValueError(
                    f"{key}: expected names of at most {LONGEST_NAME} bytes between the slashes, found {address[:60]!r}…"
                )
            if address is not None and is_s3(address) and "@" in address.split("/")[2]:
                raise ValueError(f"{key}: an s3:// address must not hold keys; {KEYS_ADVICE}")
            if address is not None and "://" in address and not is_s3(address):
                raise ValueError(f"{key}: expected a local path or s3://bucket/prefix, found {address!r}")
            if address is not None and is_s3(address) and not address.split("/")[2]:
                raise ValueError(f"{key}: expected s3://bucket/prefix, found {address!r} without a bucket")
        endpoint = self.storage.endpoint
        if endpoint is not None and "@" in endpoint:
            raise ValueError(f"storage.endpoint must not hold keys; {KEYS_ADVICE}")
        if endpoint is not None and not endpoint.startswith(("http://", "https://")):
            raise ValueError(f"storage.endpoint: expected http://host:port or https://host, found {endpoint!r}")
        return self

    @model_validator(mode="after")
    def _sections_agree(self, info: ValidationInfo) -> Config:
        for contradiction in contradictions(self, trains=info.context is None or info.context["trains"]):
            raise ValueError(contradiction)
        return self

    @property
    def models(self) -> dict[str, str | None]:
        """Setting that names a model -> its address; None: it names none."""
        return {
            "encoder.model": self.encoder.model,
            "mining.teacher.model": self.mining.teacher.folder if self.mining.teacher else None,
            "training.guide.model": self.training.guide.model if self.training.guide else None,
            "reranker.model": self.reranker.model if self.reranker else None,
        }

    @property
    def datasets(self) -> list[DatasetSettings]:
        """The run's data and, if there are any, the general set and the one that is mixed in."""
        return [self.data, *(data for data in (self.evaluation.general, self.data.mix) if data is not None)]

    @property
    def root(self) -> str:
        """The run's folder."""
        return f"{self.output.rstrip('/')}/{self.name}"


def load_config(path: Path, overrides: Sequence[str] = (), *, trains: bool = True) -> Config:
    """Read a TOML file and put `section.key=value` overrides over it. Relative paths count from the file's folder.

    Args:
        trains: the sections must agree on how to train; False: nothing will be trained.

    Raises:
        ConfigError: the file is missing or no TOML, or a setting is wrong; names the key, what was expected and found.
    """
    values = read_values(path)
    keys = [put_override(values, override) for override in overrides]
    source = f"{path} with {', '.join(keys)} from the command line" if keys else str(path)
    config = parse_config(values, source=source, folder=path.parent, trains=trains)
    config._origin = Origin(str(path.absolute()), tuple(overrides))
    return config


def read_values(path: Path) -> dict[str, Any]:
    """The tree of values in a TOML file. Raises ConfigError: the file is missing or no TOML."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(
            f"there is no config file {path}; `hardmine init DATA` writes one for your tables, and `hardmine demo` needs none"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"expected a text file in UTF-8 at {path}, found something else ({error}); give the TOML file of the run"
        ) from error
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{path}: expected lists and tables a few levels deep, found hundreds; take them out") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f'{path} is not valid TOML: {error}; texts need quotes (name = "catalogue"), sections brackets ([data])'
        ) from error


def set_by_user(path: Path, overrides: Sequence[str] = ()) -> dict[str, str]:
    """Full name of each setting that is not left at its default -> "file" or "command line"."""
    where = dict.fromkeys(_leaves(read_values(path), ""), "file")
    for override in overrides:
        values: dict[str, Any] = {}
        put_override(values, override)
        where |= dict.fromkeys(_leaves(values, ""), "command line")
    return where


def _leaves(values: dict[str, Any], above: str) -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def parse_config(values: dict[str, Any], *, source: str, folder: Path | None = None, trains: bool = True) -> Config:
    """Validate a tree of values. Raises ConfigError as `load_config`."""
    config = validate(Config, values, source=source, context={"trains": trains})
    if folder is None:
        return config
    config = _absolute(config, folder)
    if trains:  # now, not after hours of mining
        own = config.training.deepspeed
        check_deepspeed(config.training, None if own is None else read_deepspeed(own))
    return config


def put_override(values: dict[str, Any], override: str) -> str:
    """Put one override over the values; returns its key. Messages show no value: it may be a secret."""
    key, equals, text = override.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        written = repr(key) if equals else f'{override!r} without "="'
        raise ConfigError(f"expected an override of the form section.key=value, found {written}; for example training.epochs=2")
    *sections, name = parts
    inner: Any = values
    for number, section in enumerate(sections, start=1):
        inner = inner.setdefault(section, {})
        if not isinstance(inner, dict):
            above = ".".join(parts[:number])
            kind = "a list; set it in the file" if isinstance(inner, list) else f"a value; set it with {above}=…"
            raise ConfigError(f"override {key.strip()}: expected {above} to be a section, but it is {kind}")
    if isinstance(inner.get(name), dict) and "=" not in text:
        raise ConfigError(
            f"override {key.strip()}: expected a setting, but this is a section; set one of its keys, {key.strip()}.key=value"
        )
    inner[name] = _parse_value(text)
    return key.strip()


def _parse_value(text: str) -> Any:
    if text == "null":  # TOML has none; a text is "null" in quotes
        return None
    try:
        values = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text  # a bare word is a text: shells eat quotes
    return values["value"] if len(values) == 1 else text


def _absolute(config: Config, folder: Path) -> Config:
    """Addresses relative to the config's folder made absolute: workers run elsewhere."""

    def absolute(value: str | None) -> str | None:
        if value is None or is_s3(value):
            return value
        try:
            path = Path(value).expanduser()
            return str(path if path.is_absolute() else (folder / path).resolve())
        except (OSError, RuntimeError) as error:
            raise ConfigError(
                f"expected the address of a file or folder, found {value!r} ({one_paragraph(str(error))}); fix the address, or "
                f"the symbolic links on the way"
            ) from error

    def absolute_model(model: str | None) -> str | None:
        # "organisation/name" may be a folder or a name on the hub; with dots before or more slashes only a folder
        if model is not None and (model.startswith((".", "~")) or model.count("/") > 1 or (folder / model).is_dir()):
            return absolute(model)
        return model

    def absolute_sources(data: D) -> D:
        return data.model_copy(update={name: absolute(getattr(data, name)) for name in SOURCES})

    evaluation = config.evaluation
    if evaluation.general is not None:
        evaluation = evaluation.model_copy(update={"general": absolute_sources(evaluation.general)})
    data = absolute_sources(config.data)
    if data.mix is not None:
        data = data.model_copy(update={"mix": absolute_sources(data.mix)})
    mining = config.mining
    if mining.teacher is not None:
        mining = mining.model_copy(update={"teacher": mining.teacher.resolved(absolute, absolute_model)})
    encoder = config.encoder.model_copy(update={"model": absolute_model(config.encoder.model)})
    training = config.training.model_copy(update={"deepspeed": absolute(config.training.deepspeed)})
    if training.guide is not None:
        guide = training.guide.model_copy(update={"model": absolute_model(training.guide.model)})
        training = training.model_copy(update={"guide": guide})
    reranker = config.reranker and config.reranker.model_copy(update={"model": absolute_model(config.reranker.model)})
    return config.model_copy(
        update={
            "output": absolute(config.output),
            "data": data,
            "encoder": encoder,
            "mining": mining,
            "training": training,
            "reranker": reranker,
            "evaluation": evaluation,
        }
    )
