"""Settings of different sections that must agree: what leaves nothing to do is refused.

What merely has no effect beside other settings is a warning (`jobs.config.without_effect`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from eval.settings import EvaluationSettings

if TYPE_CHECKING:
    from jobs.config.config import Config


def _idle_teacher(config: Config) -> Iterator[str]:
    """A teacher that scores pairs for nothing."""
    teacher, cuts = config.mining.teacher, "neither max_score nor relative_margin"
    if teacher is None or teacher.max_score is not None or teacher.relative_margin is not None:
        return
    if teacher.relabel is not None:
        yield f"mining.teacher.relabel takes from what the teacher drops, but mining.teacher has {cuts}; set one of them"
    elif teacher.weak_positive is None and config.mining.choose != "stratified" and config.training.distil is None:
        yield (
            f"mining.teacher has {cuts}, so it would score pairs and drop none; set one of them, or [training.distil], or remove "
            f"[mining.teacher]"
        )


def _own_teacher(config: Config, *, trains: bool) -> Iterator[str]:
    """A teacher that the run would have to train, but cannot."""
    if config.mining.teacher is None or not config.mining.teacher.own:
        return
    own = 'mining.teacher.kind = "reranker" without mining.teacher.model is the re-ranker that this run trains'
    other = "give the folder of another run as mining.teacher.model, or remove [mining.teacher]"
    if config.rounds.background:
        yield f"{own}, which rounds.background = true would do beside another training; set background = false, {other}"
    if not trains:
        yield f"{own}, but `hardmine mine` without --round trains nothing; {other}"
    elif config.reranker is None:
        yield f"{own}, but there is no [reranker]; add one, {other}"
    elif config.rounds.mined < 2:
        yield (
            f"{own} on the negatives of round 1, so it teaches from round 2 on, but rounds.mined = {config.rounds.mined}; raise "
            f"it to 2 or more, {other}"
        )
    elif config.reranker.loss == "margin_mse":
        yield f'{own}, but reranker.loss = "margin_mse" learns from a teacher\'s scores; set another loss, {other}'


def contradictions(config: Config, *, trains: bool) -> Iterator[str]:
    """What is refused: one paragraph each, with the numbers and the way out. Args: trains: it is about a run that trains."""
    yield from _idle_teacher(config)
    yield from _own_teacher(config, trains=trains)
    if not trains:
        return
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
    yield from _of_mix(config)
    longest = max(training.matryoshka, default=0)
    if encoder.kind == "static" and encoder.model is None and longest > encoder.dimension:
        yield (
            f"training.matryoshka = {training.matryoshka} contains {longest}, but a vector has encoder.dimension = "
            f"{encoder.dimension} numbers; remove the lengths above {encoder.dimension}, or raise encoder.dimension"
        )
    yield from _of_rounds(config)
    if rounds.mined and not training.hard_negatives:
        yield "training.hard_negatives = 0 would mine negatives that no step uses; set it to 1 or more, or rounds.mined = 0"
    if rounds.mined and training.hard_negatives > config.mining.num_negatives:
        yield (
            f"training.hard_negatives = {training.hard_negatives} per step cannot come from mining.num_negatives = "
            f"{config.mining.num_negatives} per query; raise num_negatives or lower hard_negatives"
        )
    if training.distil is not None and config.mining.teacher is None:
        yield (
            "training.distil teaches the model a teacher's scores of the mined negatives, but there is no [mining.teacher]; add "
            "one, or remove [training.distil]"
        )
    if config.reranker is not None and not rounds.mined:
        yield (
            "[reranker] is trained on mined negatives, but rounds.mined = 0 mines none; set rounds.mined to 1 or more, or remove "
            "[reranker]"
        )
    if config.reranker is not None and encoder.kind == "sequence":
        yield (
            '[reranker] reads the texts of queries and items, but with encoder.kind = "sequence" a query is a history of items; '
            "remove [reranker]"
        )
    yield from _of_gate(config.evaluation)


def _of_rounds(config: Config) -> Iterator[str]:
    encoder, rounds = config.encoder, config.rounds
    if rounds.warmup_epochs == 0 and rounds.mined == 0:
        yield "rounds.warmup_epochs = 0 and rounds.mined = 0 leave nothing to train; raise one of them"
    if rounds.merge and (encoder.kind == "sequence" or (encoder.kind == "static" and encoder.model is None)):
        without = "" if encoder.kind == "sequence" else " without encoder.model"
        yield (
            f'rounds.merge = {rounds.merge} averages with the model that the run starts from, but encoder.kind = "{encoder.kind}"'
            f"{without} starts with random weights, and there is nothing to keep of them; remove rounds.merge"
        )
    if rounds.compare_random and not rounds.mined:
        yield (
            "rounds.compare_random = true compares mined with random negatives, but rounds.mined = 0 mines none; set "
            "rounds.mined to 1 or more, or compare_random = false"
        )


def _of_mix(config: Config) -> Iterator[str]:
    mix, general = config.data.mix, config.evaluation.general
    if mix is None:
        return
    if config.encoder.kind == "sequence":
        yield (
            'data.mix: expected an encoder that reads texts or vectors, found encoder.kind = "sequence", which knows the items '
            "of its own corpus only; remove [data.mix]"
        )
    if config.training.guide is not None:
        yield (
            "[training.guide] knows the run's own items and queries only, not those of [data.mix], so it cannot judge them; "
            "remove one of both"
        )
    labels = mix.folder or mix.qrels
    if general is not None and labels in (general.folder, general.qrels):
        yield (
            f"[data.mix] trains on {labels}, and [evaluation.general] measures every labelled query of it, so it would not show "
            f"what is forgotten; give one of both other labels (evaluation.general.qrels of the test split only, for example)"
        )


def _of_gate(evaluation: EvaluationSettings) -> Iterator[str]:
    gate = evaluation.gate
    if gate.min_slice is not None and (not gate.slices or evaluation.slices == ()):
        off = "evaluation.gate.slices = false" if not gate.slices else "evaluation.slices = []"
        yield (
            f"evaluation.gate.min_slice = {gate.min_slice} checks every slice, but {off} leaves none to check; remove one of them"
        )
