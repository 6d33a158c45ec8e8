"""Settings of different sections that must agree, and settings that have no effect beside others.

What leaves nothing to do is refused (`contradictions`). What merely has no effect is a warning (`without_effect`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import BaseModel

from eval.settings import EvaluationSettings
from mining.settings import MiningSettings

if TYPE_CHECKING:
    from jobs.config.config import Config


def contradictions(config: Config) -> Iterator[str]:
    """What is refused before a run that trains: one paragraph each, with the numbers and the way out."""
    encoder, training, rounds = config.encoder, config.training, config.rounds
    if encoder.kind == "vectors":
        yield (
            'encoder.kind = "vectors" has no model that could be trained: `hardmine mine` without --round '
            'mines with the vectors as they are; to train on them, set encoder.kind = "adapter"'
        )
    if training.lora is not None and encoder.kind != "transformer":
        yield (
            f'training.lora adapts the layers of a transformer, but encoder.kind = "{encoder.kind}", which is small enough '
            f"to be trained whole; remove [training.lora]"
        )
    if encoder.kind == "sequence" and config.evaluation.general is not None:
        yield (
            "evaluation.general: expected an encoder that reads texts or vectors, found encoder.kind = "
            '"sequence", which knows the items of its own corpus only; remove [evaluation.general]'
        )
    longest = max(training.matryoshka, default=0)
    if encoder.kind == "static" and encoder.model is None and longest > encoder.dimension:
        yield (
            f"training.matryoshka = {training.matryoshka} contains {longest}, but a vector has encoder.dimension = "
            f"{encoder.dimension} numbers; remove the lengths above {encoder.dimension}, or raise encoder.dimension"
        )

    if rounds.warmup_epochs == 0 and rounds.mined == 0:
        yield "rounds.warmup_epochs = 0 and rounds.mined = 0 leave nothing to train; raise one of them"
    if rounds.compare_random and not rounds.mined:
        yield (
            "rounds.compare_random = true compares mined with random negatives, but rounds.mined = 0 mines none; set "
            "rounds.mined to 1 or more, or compare_random = false"
        )
    if rounds.mined and not training.hard_negatives:
        yield "training.hard_negatives = 0 would mine negatives that no step uses; set it to 1 or more, or rounds.mined = 0"
    if rounds.mined and training.hard_negatives > config.mining.num_negatives:
        yield (
            f"training.hard_negatives = {training.hard_negatives} per step cannot come from mining.num_negatives = "
            f"{config.mining.num_negatives} per query; raise num_negatives or lower hard_negatives"
        )
    yield from _of_gate(config.evaluation)


def _of_gate(evaluation: EvaluationSettings) -> Iterator[str]:
    gate = evaluation.gate
    if gate.min_slice is not None and (not gate.slices or evaluation.slices == ()):
        off = "evaluation.gate.slices = false" if not gate.slices else "evaluation.slices = []"
        yield (
            f"evaluation.gate.min_slice = {gate.min_slice} checks every slice, but {off} leaves none to check; remove one of them"
        )


def without_effect(config: Config) -> list[str]:
    """Warnings about settings that do nothing beside the others, each with the way out."""
    mining, training, encoder = config.mining, config.training, config.encoder
    found = list(_of_mining(mining))
    if training.hard_negatives and training.random_fraction and not training.random_negatives(mined=True):
        found.append(
            f"training.random_fraction = {training.random_fraction:g} of training.hard_negatives = {training.hard_negatives} "
            f"is less than half a negative: mined rounds have no random ones. Set random_fraction to "
            f"{1 / training.hard_negatives:g} for one per query, or to 0"
        )
    trained = 1 if config.rounds.warmup_epochs else 2
    for kind, first in (("earlier", 2), ("baseline", trained)):
        if 0 < config.rounds.mined < first and kind in {source.kind for source in mining.sources}:
            found.append(
                f'mining.sources: "{kind}" gives nothing before round {first}, but rounds.mined = {config.rounds.mined}; raise '
                f"rounds.mined, or remove that source"
            )
    if training.loss == "info_nce" and _changed(training, "margin"):
        found.append(f'training.margin = {training.margin:g} has no effect: it belongs to training.loss = "triplet"')
    if encoder.repeats and encoder.kind != "sequence":
        found.append(f'encoder.repeats = true has no effect with encoder.kind = "{encoder.kind}": it belongs to "sequence"')
    if config.cluster.cpus is not None and config.cluster.address is not None:
        found.append(f"cluster.cpus = {config.cluster.cpus} has no effect with cluster.address: it is the size of a local Ray")
    return found


def _of_mining(mining: MiningSettings) -> Iterator[str]:
    if mining.choose != "softmax" and _changed(mining, "choice_temperature"):
        yield (
            f'mining.choice_temperature = {mining.choice_temperature:g} has no effect with mining.choose = "{mining.choose}"; '
            f'set choose = "softmax"'
        )
    if mining.popularity is None and _changed(mining, "popularity_power"):
        yield f"mining.popularity_power = {mining.popularity_power:g} has no effect without mining.popularity, a column's name"
    if mining.target_discard_rate is not None and mining.relative_margin is not None and _changed(mining, "relative_margin"):
        yield (
            f"mining.relative_margin = {mining.relative_margin:g} has no effect: mining.target_discard_rate = "
            f"{mining.target_discard_rate:g} replaces it"
        )
    margins = (mining.relative_margin, mining.absolute_margin, mining.target_discard_rate)
    if margins == (None, None, None) and _changed(mining, "margin_reference"):
        yield f'mining.margin_reference = "{mining.margin_reference}" has no effect: no margin is set'
    total = sum(source.share for source in mining.sources)
    for source in mining.sources:
        if mining.num_negatives * source.share / total < 1:
            yield (
                f"mining.sources: a share of {source.share:g} of {total:g} is less than one of mining.num_negatives = "
                f'{mining.num_negatives}, so "{source.kind}" may give no negative; raise its share to '
                f"{total / mining.num_negatives:.2g} or more"
            )
    most = mining.num_hits * len(mining.sources) - mining.skip_first
    if mining.teacher is not None and mining.teacher.depth is not None and mining.teacher.depth > most:
        yield f"mining.teacher.depth = {mining.teacher.depth} is more than the {most} candidates that a query can have"


def _changed(section: BaseModel, name: str) -> bool:
    return bool(getattr(section, name) != type(section).model_fields[name].default)
