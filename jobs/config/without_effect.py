"""Settings that do nothing beside the others: a warning each, from one table.

A row says which settings need what. A setting that keeps its default is never named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from cluster.storage.store import is_s3
from mining.settings import MiningSettings

if TYPE_CHECKING:
    from jobs.config.config import Config


@dataclass(frozen=True)
class Needs:
    """Settings that have an effect only where others allow it."""

    settings: tuple[str, ...]
    """Their full names."""
    met: Callable[[Config], bool]
    """Whether they have one."""
    why_not: Callable[[Config], str]
    """Which other setting leaves them without one."""
    trains: bool = False
    """It is about rounds: `hardmine mine` without --round, which trains nothing, may read the setting all the same."""


def reads_texts(config: Config) -> bool:
    """Whether the base model reads tokens of the data's texts, not vectors that came with it."""
    kind, model = config.encoder.kind, config.encoder.model
    return not (kind == "vectors" or (kind in ("adapter", "sequence") and model is None))


def _kind(*kinds: str) -> Callable[[Config], str]:
    names = " or ".join(f'"{kind}"' for kind in kinds)
    return lambda config: f'it belongs to encoder.kind = {names}, and this is "{config.encoder.kind}"'


def _of_encoder(config: Config) -> str:
    return f'encoder.kind = "{config.encoder.kind}"' + ("" if config.encoder.model else " without encoder.model")


def _reaches_s3(config: Config) -> bool:
    data = [getattr(data, name) for data in config.datasets for name in ("corpus", "queries", "qrels", "folder")]
    return any(is_s3(address) for address in (config.output, *data, *config.models.values()) if address)


def _draws_random(config: Config) -> bool:
    training, rounds = config.training, config.rounds
    only_random = rounds.warmup_epochs or rounds.compare_random
    return bool(training.random_negatives(mined=True) or (only_random and training.hard_negatives))


STILL_READ = {"rules", "popularity", "embedding_dtype", "embedding_precision", "search"}
"""Settings of [mining] that an evaluation reads, too."""
TABLE = (
    Needs(
        ("encoder.dimension", "encoder.vocabulary"),
        lambda config: config.encoder.kind == "static" and config.encoder.model is None,
        lambda config: f"only a new static model has it, and this is {_of_encoder(config)}",
    ),
    Needs(("encoder.hidden",), lambda config: config.encoder.kind in ("adapter", "sequence"), _kind("adapter", "sequence")),
    Needs(("encoder.repeats",), lambda config: config.encoder.kind == "sequence", _kind("sequence")),
    Needs(
        ("encoder.pooling",),
        lambda config: reads_texts(config) and config.encoder.kind != "static",
        lambda config: f"no transformer reads texts with {_of_encoder(config)}",
    ),
    Needs(
        ("encoder.item_prompt",),
        reads_texts,
        lambda config: f"no text is read with {_of_encoder(config)}, but the data's vectors",
    ),
    Needs(
        ("encoder.query_prompt",),
        lambda config: reads_texts(config) and config.encoder.kind != "sequence",
        lambda config: f"no query's text is read with {_of_encoder(config)}",
    ),
    Needs(
        ("encoder.max_length",),
        lambda config: reads_texts(config) or config.encoder.kind == "sequence",
        lambda config: f"no text is read with {_of_encoder(config)}, but the data's vectors",
    ),
    Needs(
        ("training.margin",),
        lambda config: config.training.loss == "triplet",
        lambda config: f'it belongs to training.loss = "triplet", and this is "{config.training.loss}"',
    ),
    Needs(
        ("training.temperature",),
        lambda config: config.training.loss == "info_nce",
        lambda config: f'training.loss = "{config.training.loss}" has no temperature',
    ),
    Needs(
        ("training.gather",),
        lambda config: config.training.in_batch,
        lambda config: "training.in_batch = false uses no such negatives",
    ),
    Needs(
        ("training.random_fraction",),
        lambda config: config.training.hard_negatives > 0,
        lambda config: "it is a multiple of training.hard_negatives = 0",
    ),
    Needs(("training.random_popularity",), _draws_random, lambda config: "no random negatives are drawn"),
    Needs(
        ("training.epochs",),
        lambda config: config.rounds.mined > 0,
        lambda config: "rounds.mined = 0: the warm-up has rounds.warmup_epochs",
        trains=True,
    ),
    Needs(
        ("rounds.background",),
        lambda config: config.rounds.mined > int(config.rounds.warmup_epochs == 0),
        lambda config: "no round is mined while another one trains",
        trains=True,
    ),
    Needs(
        ("rounds.patience",),
        lambda config: config.rounds.patience < config.rounds.mined,
        lambda config: f"rounds.mined = {config.rounds.mined} rounds end no later",
        trains=True,
    ),
    Needs(
        tuple(f"mining.{name}" for name in MiningSettings.model_fields if name not in STILL_READ),
        lambda config: config.rounds.mined > 0,
        lambda config: "rounds.mined = 0 mines nothing",
        trains=True,
    ),
    Needs(
        ("mining.choice_temperature",),
        lambda config: config.mining.choose == "softmax",
        lambda config: f'mining.choose = "{config.mining.choose}"; it belongs to "softmax"',
    ),
    Needs(
        ("mining.popularity_power",),
        lambda config: config.mining.popularity is not None,
        lambda config: "mining.popularity, a column's name, is not set",
    ),
    Needs(
        ("mining.relative_margin",),
        lambda config: config.mining.relative_margin is None or config.mining.target_discard_rate is None,
        lambda config: f"mining.target_discard_rate = {config.mining.target_discard_rate:g} replaces it",
    ),
    Needs(
        ("mining.margin_reference",),
        lambda config: (
            (config.mining.relative_margin, config.mining.absolute_margin, config.mining.target_discard_rate)
            != (None, None, None)
        ),
        lambda config: "no margin is set",
    ),
    Needs(
        ("mining.teacher.max_length",),
        lambda config: config.mining.teacher is not None and config.mining.teacher.kind in ("cross_encoder", "encoder"),
        lambda config: (
            "the server cuts texts"
            if config.mining.teacher and config.mining.teacher.served
            else "a run's re-ranker reads as many tokens as it was trained with"
        ),
    ),
    Needs(
        ("mining.teacher.requests",),
        lambda config: config.mining.teacher is not None and config.mining.teacher.served,
        lambda config: 'it belongs to mining.teacher.kind = "http" or "llm"',
    ),
    Needs(
        ("mining.teacher.rubric",),
        lambda config: config.mining.teacher is not None and config.mining.teacher.kind == "llm",
        lambda config: 'it belongs to mining.teacher.kind = "llm"',
    ),
    Needs(
        ("mining.search.min_recall", "mining.search.lists"),
        lambda config: config.mining.search.mode in ("auto", "ivf"),
        lambda config: f'it belongs to mining.search.mode = "ivf", and this is "{config.mining.search.mode}"',
    ),
    Needs(
        ("evaluation.min_slice_queries",),
        lambda config: config.evaluation.slices != (),
        lambda config: "evaluation.slices = [] measures none",
    ),
    Needs(
        ("evaluation.gate.max_forgetting",),
        lambda config: config.evaluation.general is not None,
        lambda config: "there is no [evaluation.general]",
    ),
    Needs(
        ("cluster.cpus",),
        lambda config: config.cluster.address is None,
        lambda config: "it is the size of a local Ray, and cluster.address names another",
    ),
    Needs(
        ("storage.endpoint", "storage.region", "storage.profile", "storage.attempts"),
        _reaches_s3,
        lambda config: "no address of this run is s3://",
    ),
)
"""Which settings need what to have an effect."""


def without_effect(config: Config, *, trains: bool = True) -> list[str]:
    """Warnings about settings that do nothing beside the others, each with the reason. Args: trains: training follows."""
    rows = (needs for needs in TABLE if trains or not needs.trains)
    warnings = [
        f"{key} = {_shown(value)} has no effect: {needs.why_not(config)}"
        for needs in rows
        if not needs.met(config)
        for key in needs.settings
        if (value := changed(config, key)) is not None
    ]
    return [*dict.fromkeys(warnings), *_too_little(config)]


def changed(config: Config, key: str) -> Any:
    """The value of a setting that differs from its default, "off" for nothing; None: it does not, or has no section."""
    *sections, name = key.split(".")
    section: BaseModel = config
    for part in sections:
        section = getattr(section, part)
        if section is None:
            return None
    value, default = getattr(section, name), type(section).model_fields[name].default
    return None if value == default else "off" if value is None else value


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, BaseModel | tuple):
        return "…"
    return f"{value:g}" if isinstance(value, float) else str(value) if isinstance(value, int) else f'"{value}"'


def _too_little(config: Config) -> Iterator[str]:
    """Numbers that come to nothing."""
    mining, training = config.mining, config.training
    if training.hard_negatives and training.random_fraction and not training.random_negatives(mined=True):
        yield (
            f"training.random_fraction = {training.random_fraction:g} of training.hard_negatives = {training.hard_negatives} "
            f"is less than half a negative: mined rounds have no random ones. Set random_fraction to "
            f"{1 / training.hard_negatives:g} for one per query, or to 0"
        )
    trained = (1 if config.rounds.warmup_epochs else 2) + int(config.rounds.background)
    for kind, first in (("earlier", 2), ("baseline", trained)):
        if 0 < config.rounds.mined < first and kind in {source.kind for source in mining.sources}:
            yield (
                f'mining.sources: "{kind}" gives nothing before round {first}, but rounds.mined = {config.rounds.mined}; raise '
                f"rounds.mined, or remove that source"
            )
    total = sum(source.share for source in mining.sources)
    for source in mining.sources:
        if mining.num_negatives * source.share / total < 1:
            yield (
                f"mining.sources: a share of {source.share:g} of {total:g} is less than one of mining.num_negatives = "
                f'{mining.num_negatives}, so "{source.kind}" may give no negative; raise its share to '
                f"{total / mining.num_negatives:.2g} or more"
            )
    yield from _read_too_late(mining)
    most = mining.num_hits * len(mining.sources) - mining.skip_first
    if mining.teacher is not None and mining.teacher.depth is not None and mining.teacher.depth > most:
        yield f"mining.teacher.depth = {mining.teacher.depth} is more than the {most} candidates that a query can have"


def _read_too_late(mining: MiningSettings) -> Iterator[str]:
    """What a teacher should judge, but another filter drops before."""
    teacher, margin = mining.teacher, mining.relative_margin
    if teacher is None or margin is None or mining.target_discard_rate is not None:
        return
    for name in ("relabel", "weak_positive"):
        value = getattr(teacher, name)
        if value is not None:
            yield (
                f"mining.teacher.{name} = {value:g} judges what the teacher has read, but mining.relative_margin = {margin:g} "
                f'drops the candidates nearest to the relevant items before; set mining.relative_margin = "off"'
            )
