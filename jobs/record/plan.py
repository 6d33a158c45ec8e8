"""The stages of a run in order, from its configuration alone."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.config.config import Config
from jobs.config.without_effect import reads_texts
from jobs.record.stages import BASELINE, MERGED, Chosen, Kind, ModelName, Reranker, Scope, Second, SourceName, Stage
from mining.settings import SourceKind

FIRST_TAUGHT = 2
"""The first round whose negatives the run's own re-ranker has seen: it is trained on those of round 1."""


def plan_run(config: Config, *, mined: int | None = None) -> list[Stage]:
    """Every stage of a run that trains.

    Args:
        mined: number of mined rounds, if the run ended before rounds.mined of them.
    """
    last = config.rounds.mined if mined is None else mined
    stages = [*_prepared(config), *_measured(config, BASELINE)]
    if config.data.mix is not None and config.encoder.kind == "adapter" and reads_texts(config):
        stages.append(Stage(Kind.EMBED, BASELINE, Scope.MIX))
    stages += _rounds(config, last)
    for share in config.rounds.merge if trained_models(config, last) else ():
        merged = ModelName(MERGED + share)
        stages += [Stage(Kind.MERGE, merged), *_measured(config, merged)]
    if config.rounds.compare_random and last:
        arm = ModelName(last, random=True)
        stages += [Stage(Kind.TRAIN, arm), *_measured(config, arm)]
    if config.evaluation.split == "test":
        for chosen in Chosen:
            if chosen is not Chosen.RANDOM_ARM or (config.rounds.compare_random and last):
                stages += [Stage(kind, chosen) for kind in _measuring(config)]
    reranked = [stage for stage in _reranked(config) if stage not in stages]
    return [*stages, *reranked, Stage(Kind.FINISH)]


def _rounds(config: Config, last: int) -> list[Stage]:
    """The warm-up and the mined rounds."""
    models = trained_models(config, last)
    beside = plan_beside(config, mined=last)
    early = {stage for stages in beside.values() for stage in stages}
    stages: list[Stage] = []
    for model in models:
        mining = plan_mining(config, model) if model.round else []
        stages += [stage for stage in mining if stage not in early]
        if model == models[0]:
            stages += _second_model(config, Second.GUIDE)
        train = Stage(Kind.TRAIN, model)
        stages += [train, *beside.get(train, []), *(stage for stage in _measured(config, model) if stage not in early)]
    return stages


def trained_models(config: Config, last: int) -> list[ModelName]:
    """The models of the rounds up to `last`, in order."""
    return [ModelName(number) for number in range(0 if config.rounds.warmup_epochs else 1, last + 1)]


def plan_beside(config: Config, *, mined: int | None = None) -> dict[Stage, list[Stage]]:
    """With rounds.background: a round's training -> the stages that run beside it, in order.

    The model before is measured, and the round after is mined for with it. Everything else they read was there before. Without
    a warm-up the first round has no training before it, so it is mined for first.

    Args:
        mined: as for `plan_run`.
    """
    if not config.rounds.background:
        return {}
    models = trained_models(config, config.rounds.mined if mined is None else mined)
    beside = {}
    for before, model, after in zip([None, *models], models, [*models[1:], None], strict=False):
        measured = _measured(config, before) if before else []
        beside[Stage(Kind.TRAIN, model)] = [*measured, *(plan_mining(config, after) if after else [])]
    return {training: stages for training, stages in beside.items() if stages}


def plan_mining(config: Config, model: ModelName) -> list[Stage]:
    """The stages of a round's mining. The first round that needs a shared stage has it."""
    own = [Kind.PAIRS, Kind.SCORE] if other_sources(config, model) else []
    stages = [Stage(Kind.TRAIN_RERANKER)] if trains_teacher(config) and model.round == FIRST_TAUGHT else []
    stages += [Stage(Kind.SEARCH, model), *_shared_sources(config, model), *(Stage(kind, model) for kind in own)]
    if config.mining.near_duplicate is not None and model.round == 1:
        stages.append(Stage(Kind.NEAR))
    if has_teacher(config, model):
        stages.append(Stage(Kind.TEACHER_PAIRS, model))
        stages += _second_model(config, Second.TEACHER)[1:] if model.round == 1 else []
        stages.append(Stage(Kind.TEACHER_SCORES, model))
    return [*stages, Stage(Kind.MINE, model), Stage(Kind.REPORT, model)]


def trains_teacher(config: Config) -> bool:
    """Whether the teacher is the re-ranker that this run trains: it learns from the first mined round, and teaches later ones."""
    return config.mining.teacher is not None and config.mining.teacher.own


def has_teacher(config: Config, model: object) -> bool:
    """Whether a teacher is asked in the mining for a model; for anything but a round's, of mining alone."""
    if trains_teacher(config):
        return isinstance(model, ModelName) and model.round >= FIRST_TAUGHT
    return config.mining.teacher is not None


def other_sources(config: Config, model: ModelName | None) -> list[SourceKind]:
    """Kinds of mining.sources, besides the model's own search, that have candidates for a round; None: for mining alone."""
    number = model.round if model else 1
    # the first round that is mined with another model than the off-the-shelf one
    trained = (1 if config.rounds.warmup_epochs else 2) + int(config.rounds.background)
    since = {"baseline": trained if model else 2, "earlier": 2}
    return [source.kind for source in config.mining.sources if source.kind != "model" and number >= since.get(source.kind, 1)]


def _shared_sources(config: Config, model: ModelName) -> list[Stage]:
    """The sources that are searched once, by the first mining that needs them."""
    before = other_sources(config, ModelName(model.round - 1)) if model.round > 1 else []
    new = [source for source in other_sources(config, model) if source != "earlier" and source not in before]
    return [source_stage(source, Stage(Kind.PAIRS, model)) for source in new]


def source_stage(source: SourceKind, mining: Stage) -> Stage:
    """The stage that a source's candidates come from. Args: mining: any stage of the mining that needs them."""
    if source == "baseline":
        return Stage(Kind.SEARCH, BASELINE)
    if source == "earlier":
        assert isinstance(mining.of, ModelName)
        return Stage(Kind.MINE, ModelName(mining.of.round - 1))
    return Stage(Kind.SOURCE, SourceName(source), mining.scope)


def _prepared(config: Config) -> list[Stage]:
    """What is prepared from the data and the models before anything is measured."""
    stages = [Stage(Kind.INGEST), Stage(Kind.BASE)]
    if reads_texts(config):
        stages.append(Stage(Kind.TOKENS))
    if config.encoder.kind == "sequence":
        stages.append(Stage(Kind.SEQUENCE))
    stages += _second_model(config, Second.TEACHER)[:1]  # most mistakes in its settings show here
    stages += [Stage(Kind.MODEL, Second.RERANKER)] if config.reranker is not None else []
    if config.evaluation.general is not None:
        stages += _beside(config, Scope.GENERAL)
    return [*stages, *(_beside(config, Scope.MIX) if config.data.mix is not None else [])]


def _beside(config: Config, scope: Scope) -> list[Stage]:
    kinds = [Kind.INGEST, Kind.TOKENS] if reads_texts(config) else [Kind.INGEST]
    return [Stage(kind, scope=scope) for kind in kinds]


def _second_model(config: Config, second: Second) -> Sequence[Stage]:
    """The stages of the teacher's or the guide's model; none if there is no such model, or it is the run's own."""
    teacher, guide = config.mining.teacher, config.training.guide
    model, tokens = Stage(Kind.MODEL, second), Stage(Kind.TOKENS, second)
    vectors = Stage(Kind.EMBED, second)
    if second is Second.TEACHER and teacher is not None and not teacher.own:
        return [model, tokens, vectors] if teacher.kind == "encoder" else [model]
    return [model, tokens, vectors] if second is Second.GUIDE and guide is not None and guide.model is not None else []


def _measured(config: Config, model: ModelName) -> list[Stage]:
    """The stages that measure a model: on the run's data and, to watch for forgetting, on the general set."""
    stages = [Stage(kind, model) for kind in (Kind.EMBED, *_measuring(config))]
    if config.evaluation.general is not None and not model.random:
        stages += [Stage(kind, model, Scope.GENERAL) for kind in (Kind.EMBED, Kind.HITS, Kind.EVALUATE)]
    return stages


def _reranked(config: Config) -> list[Stage]:
    """The stages that train the re-ranker and measure it behind the retrievers."""
    if config.reranker is None:
        return []
    scores = [Stage(Kind.RERANK, reranker) for reranker in Reranker]
    return [Stage(Kind.TRAIN_RERANKER), Stage(Kind.RERANKER_PAIRS), *scores, Stage(Kind.RERANKED)]


def _measuring(config: Config) -> list[Kind]:
    return [Kind.HITS, *([Kind.EVENTS] if config.evaluation.events else []), Kind.EVALUATE]
