"""What earlier stages of a run have settled: its models, which of them leads, what each starts from, and the batch."""

from __future__ import annotations

from eval.verdict import Ruling, decide
from jobs.config.config import Config
from jobs.record.plan import plan_run
from jobs.record.stages import BASELINE, MERGED, Chosen, Kind, ModelName, Scope, Stage
from jobs.stages.context import Context


def parent_model(config: Config, model: ModelName) -> ModelName:
    """The model that a training starts from."""
    if model.round <= 0:
        return BASELINE
    if model.random or model.round == 1:
        return ModelName(0) if config.rounds.warmup_epochs else BASELINE
    return ModelName(model.round - 1)


def mining_model(config: Config, owner: object) -> ModelName:
    """The model whose vectors a round is mined with: the one that its training starts from; with rounds.background, the one
    before that. The off-the-shelf model alone, and for its own candidates."""
    if not isinstance(owner, ModelName):
        return BASELINE
    parent = parent_model(config, owner)
    return parent_model(config, parent) if config.rounds.background else parent


def earlier_models(context: Context, model: ModelName) -> list[ModelName]:
    """The off-the-shelf model and every one before `model`: rounds, and before a merged model those with a smaller share."""
    rounds = context.config.rounds
    if model == BASELINE:
        return []
    if model.share:
        smaller = [ModelName(MERGED + share) for share in rounds.merge if share < model.share]
        return [BASELINE, *trained_rounds(context), *smaller]
    return [BASELINE, *(ModelName(number) for number in range(0 if rounds.warmup_epochs else 1, model.round))]


def trained_rounds(context: Context) -> list[ModelName]:
    """The warm-up and the mined rounds, up to the one that ended the run."""
    rounds, trained = context.config.rounds, list[ModelName]()
    for number in range(0 if rounds.warmup_epochs else 1, rounds.mined + 1):
        trained.append(ModelName(number))
        ruled = number - int(rounds.background)  # the round that is measured while this one trains
        if ruled > 0 and rule_on(context, ModelName(ruled)).stops:
            break
    return trained


def rule_on(context: Context, model: ModelName) -> Ruling:
    """Whether mining continues after a round."""
    evaluated = [context.need(Stage(Kind.EVALUATE, ModelName(number))) for number in range(1, model.round + 1)]
    verdicts = [commit.figures["against_best"]["verdict"] for commit in evaluated]
    return decide(verdicts, patience=context.config.rounds.patience)


def round_of(context: Context, model: ModelName) -> int:
    """The round that trained a model: of a merged model, that of the model which is averaged with the run's start."""
    return int(context.need(model.source).figures["round"]) if model.share else model.round


def measured_models(context: Context) -> list[ModelName]:
    """The off-the-shelf model, the rounds and the merged models that are measured so far, without the random arm."""
    return sorted(
        stage.of
        for stage in context.done
        if stage.kind is Kind.EVALUATE and stage.scope is Scope.RUN and isinstance(stage.of, ModelName) and not stage.of.random
    )


def mined_rounds(context: Context) -> int:
    """How many mined rounds the run has had."""
    return max(0, max((model.round for model in measured_models(context) if not model.share), default=0))


def best_model(context: Context, among: list[ModelName]) -> ModelName:
    """The model with the highest primary figure on dev; the earlier one of equals."""
    primary = context.config.evaluation.primary

    def standing(model: ModelName) -> tuple[float, int]:
        figures = context.need(Stage(Kind.EVALUATE, model)).figures
        return figures["metrics"][primary], -model.round

    return max(among, key=standing)


def chosen_model(context: Context, chosen: Chosen) -> ModelName:
    """The model that has its last look on the test split."""
    if chosen is Chosen.BASELINE:
        return BASELINE
    if chosen is Chosen.RANDOM_ARM:
        return ModelName(mined_rounds(context), random=True)
    return best_model(context, measured_models(context))


def evaluated_model(context: Context, stage: Stage) -> ModelName:
    """The model that an evaluation's stages are of."""
    model = chosen_model(context, stage.of) if isinstance(stage.of, Chosen) else stage.of
    assert isinstance(model, ModelName)
    return model


def joined_batch(context: Context, rounds: int) -> int | None:
    """As the first of the run's rounds below `rounds` was trained under this training.batch_size; None: none was."""
    planned = {stage.name for stage in plan_run(context.config)}  # the folder may hold rounds that this configuration has not
    for number in range(rounds):
        name = Stage(Kind.TRAIN, ModelName(number)).name
        commit = context.ledger.find(name) if name in planned else None
        if commit is not None and commit.inputs["training"]["batch_size"] == context.config.training.batch_size:
            return int(commit.figures["joined_batch"])
    return None


def counted_ranks(context: Context, ranks: int) -> int:
    """The ranks that would have the run's batch at training.batch_size each, where it is settled; else those that are there."""
    batch = joined_batch(context, context.config.rounds.mined + 1)
    return -(-batch // context.config.training.batch_size) if batch else ranks
