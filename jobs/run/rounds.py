"""The driver: stage 0, the baseline, the warm-up, the mined rounds, the random arm, the model that is kept."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.commits import Commit, Outcome
from cluster.errors import ConfigError
from cluster.folders import fetch_folder, upload_folder
from eval.verdict import decide
from jobs.config.config import Config
from jobs.run.general import General, general_set
from jobs.stages.context import Context
from jobs.stages.evaluate.events import write_events
from jobs.stages.ingested import Ingested
from jobs.stages.mine.candidate_sources import extra_candidates
from jobs.stages.mine.teacher import check_teacher
from jobs.stages.stage_0_ingest import ingest
from jobs.stages.stage_1_embed import Model, base_model, embed_model, start_model, trained_model
from jobs.stages.stage_2_search import search_queries
from jobs.stages.stage_3_mine import mine_round
from jobs.stages.stage_4_train import train_round
from jobs.stages.stage_5_evaluate import evaluate
from jobs.stages.summary import BASELINE, arm_row, general_figures, round_row


@dataclass
class Standing:
    """A model with what is known of it."""

    round: int
    model: Model | None
    """None: the data's own vectors."""
    vectors: Commit
    hits: Commit
    """Of the evaluated queries."""
    evaluation: Commit
    trained: Commit | None = None
    mined: Commit | None = None
    general: Commit | None = None
    """Its evaluation on the general set."""


@dataclass
class Story:
    """All rounds of a run so far."""

    baseline: Standing
    general: General | None = None
    rounds: list[Standing] = field(default_factory=list)
    random_arm: Standing | None = None
    reason: str = ""
    """Why the loop ended."""

    def add(self, standing: Standing) -> None:
        """Take up another round."""
        self.rounds.append(standing)
        self.watch(standing)

    def watch(self, standing: Standing) -> None:
        """Measure a standing on the general set, if there is one."""
        if self.general is not None:
            standing.general = self.general.measure(standing.model, standing.evaluation, self.baseline.general)

    def best(self, primary: str) -> Standing:
        """The standing with the highest primary figure; the earlier one of equals."""
        return max([self.baseline, *self.rounds], key=lambda s: (s.evaluation.figures["metrics"][primary], -s.round))


def run_rounds(context: Context, prints: dict[str, Any]) -> dict[str, Any]:
    """The whole run; returns its summary. Every stage is taken from its commit where there is one."""
    ingested = ingest(context, prints)
    check_teacher(context)
    general = general_set(context, ingested, prints)
    story = Story(_measure_baseline(context, ingested), general)
    story.watch(story.baseline)
    current = story.baseline
    if context.config.rounds.warmup_epochs:
        current = _warm_up(context, ingested, story)
    warm = current
    _mined_rounds(context, ingested, story, current)
    if context.config.rounds.compare_random and context.config.rounds.mined:
        story.random_arm = _random_arm(context, ingested, story, warm)
    return _finish(context, ingested, story, prints)


def _measure_baseline(context: Context, ingested: Ingested) -> Standing:
    vectors = embed_model(context, ingested, base_model(ingested))
    return _measure(context, ingested, base_model(ingested), vectors, BASELINE, "baseline", "baseline", None, None)


def _measure(
    context: Context,
    ingested: Ingested,
    model: Model | None,
    vectors: Commit,
    number: int,
    name: str,
    folder: str,
    story: Story | None,
    trained: Commit | None,
    mined: Commit | None = None,
    rival: Standing | None = None,
    start: Standing | None = None,
) -> Standing:
    """Measure a model on dev, which decides everything.

    Args:
        rival: what it is compared with; None: the best so far.
        start: what it was trained from.
    """
    hits = _evaluated_hits(context, ingested, vectors, "dev", name, folder, number)
    best = rival or (story.best(context.config.evaluation.primary) if story else None)
    evaluation = evaluate(
        context,
        ingested,
        hits,
        vectors,
        name=f"{name}-evaluate",
        folder=folder,
        split="dev",
        number=number,
        baseline=story.baseline.evaluation if story else None,
        best=best.evaluation if best else None,
        previous=start.evaluation if start else None,
    )
    return Standing(number, model, vectors, hits, evaluation, trained, mined)


def _evaluated_hits(
    context: Context, ingested: Ingested, vectors: Commit, split: str, name: str, folder: str, number: int
) -> Commit:
    # one more than is measured: a query that is an item finds itself first, and that one is taken out
    hits = search_queries(
        context,
        ingested,
        vectors,
        name=f"{name}-hits",
        folder=f"{folder}/hits-{split}",
        split=split,
        num_hits=context.config.evaluation.num_hits + 1,
    )
    write_events(context, ingested, hits, model=vectors.inputs["model"], name=name, split=split, number=number)
    return hits


def _train_and_measure(
    context: Context,
    ingested: Ingested,
    story: Story,
    start: Standing,
    number: int,
    *,
    mined: Commit | None,
    epochs: int,
    cycles: int = 1,
    steps: int | None = None,
    arm: str = "",
    rival: Standing | None = None,
) -> Standing:
    name = f"round-{number:02d}{arm}"
    model = start.model if start.trained is not None else start_model(ingested)
    assert model is not None
    trained = train_round(
        context,
        ingested,
        model,
        name=f"{name}-train",
        number=number,
        negatives=mined,
        near_misses=story.baseline.hits,
        epochs=epochs,
        cycles=cycles,
        steps=steps,
    )
    after = trained_model(trained, model)
    vectors = embed_model(context, ingested, after)
    return _measure(
        context, ingested, after, vectors, number, name, f"rounds/{number:02d}{arm}", story, trained, mined, rival, start
    )


def _warm_up(context: Context, ingested: Ingested, story: Story) -> Standing:
    standing = _train_and_measure(
        context, ingested, story, story.baseline, 0, mined=None, epochs=context.config.rounds.warmup_epochs
    )
    story.add(standing)
    return standing


def _mined_rounds(context: Context, ingested: Ingested, story: Story, current: Standing) -> None:
    settings = context.config.rounds
    verdicts: list[Any] = []
    for number in range(1, settings.mined + 1):
        name, folder = f"round-{number:02d}-search", f"rounds/{number:02d}/hits-train"
        hits = search_queries(
            context,
            ingested,
            current.vectors,
            name=name,
            folder=folder,
            split="train",
            num_hits=context.config.mining.num_hits,
            exclude_known=True,
            settings=context.config.mining.search,
        )
        extra = extra_candidates(
            context,
            ingested,
            hits,
            vectors=current.vectors,
            baseline=story.baseline.vectors,
            earlier=current.mined,
            name=f"round-{number:02d}",
            folder=f"rounds/{number:02d}",
        )
        mined = mine_round(context, ingested, hits, number=number, extra=extra)
        current = _train_and_measure(
            context, ingested, story, current, number, mined=mined, epochs=context.config.training.epochs
        )
        story.add(current)
        verdicts.append(current.evaluation.figures["against_best"]["verdict"])
        ruling = decide(verdicts, patience=settings.patience)
        story.reason = ruling.reason
        if ruling.stops:
            context.progress.say(f"! {ruling.reason}")
            if context.only is not None:
                raise ConfigError(f"{context.only.name} is not reached: the run ended after round {number}. {ruling.reason}")
            break


def _random_arm(context: Context, ingested: Ingested, story: Story, warm: Standing) -> Standing:
    """The mined rounds' steps and learning-rate cycles, from the same warm-up, with random negatives only, in one go."""
    mined = [standing for standing in story.rounds if standing.mined is not None]
    steps = sum(int(standing.trained.figures["steps"]) for standing in mined if standing.trained)
    return _train_and_measure(
        context,
        ingested,
        story,
        warm,
        len(mined),
        mined=None,
        arm="-random",
        rival=mined[-1],
        epochs=len(mined) * context.config.training.epochs,
        cycles=len(mined),
        steps=steps,
    )


def _last_look(context: Context, ingested: Ingested, story: Story) -> dict[str, Any] | None:
    """Figures on the test split of what dev has chosen, if the configuration asks for them."""
    if context.config.evaluation.split != "test":
        return None
    chosen = {"baseline": story.baseline, "best": story.best(context.config.evaluation.primary)}
    if story.random_arm:
        chosen["random_arm"] = story.random_arm
    figures: dict[str, Any] = {}
    first: Commit | None = None
    for label, standing in chosen.items():
        hits = _evaluated_hits(context, ingested, standing.vectors, "test", f"test-{label}", f"test/{label}", standing.round)
        measured = evaluate(
            context,
            ingested,
            hits,
            standing.vectors,
            name=f"test-{label}-evaluate",
            folder=f"test/{label}",
            split="test",
            number=standing.round,
            baseline=first,
            best=None,
            previous=None,
        )
        first = first or measured
        figures[label] = {
            "round": standing.round,
            "metrics": measured.figures["metrics"],
            "against_baseline": measured.figures.get("against_baseline"),
        }
    return figures


def _finish(context: Context, ingested: Ingested, story: Story, prints: dict[str, Any]) -> dict[str, Any]:
    best = story.best(context.config.evaluation.primary)
    test = _last_look(context, ingested, story)
    started = time.time()

    def work(folder: str) -> Outcome:
        import ray

        remote = ray.remote(_export).options(num_cpus=1, max_retries=context.config.cluster.retries)
        files = ray.get(remote.remote(context.store, folder, best.model, ingested.base))
        summary = summarise(context, story, folder) | {"test": test}
        return Outcome(files=files, figures={"prefix": folder, "summary": summary})

    inputs = finish_inputs(context.config, prints)
    inputs |= {"evaluation": best.evaluation.key, "model": best.model.digest if best.model else None}
    commit = context.stage("finish", "finish", folder="model", inputs=inputs, work=work)
    context.store.write_json("run.json", run_json(context, prints, started))
    summary: dict[str, Any] = commit.figures["summary"]
    return summary


def finish_inputs(config: Config, prints: dict[str, Any]) -> dict[str, Any]:
    """What tells a finished run from another one."""
    values = json.loads(
        config.model_dump_json(
            exclude={
                "storage": True,
                "output": True,
                "encoder": {"model"},
                "probe": True,
                "sweep": True,
                "evaluation": {"diagnosis", "gate"},
            }
        )
    )
    return {"config": values, "data": prints}


def run_json(context: Context, prints: dict[str, Any], started: float) -> dict[str, Any]:
    """What the run is: configuration without anything secret, versions, data."""
    from importlib.metadata import version

    packages = ("ray", "torch", "deepspeed", "pyarrow", "transformers", "numpy")
    return {
        "config": context.config.model_dump(mode="json"),
        "data": prints,
        "written": started,
        "versions": {name: version(name) for name in packages},
    }


def summarise(context: Context, story: Story, model_prefix: str) -> dict[str, Any]:
    """The run as `--json` prints it."""
    best = story.best(context.config.evaluation.primary)
    arm = story.random_arm
    return {
        "name": context.config.name,
        "output": context.store.root,
        "model": context.store.url(model_prefix) if best.model else None,
        "best_round": best.round,
        "primary": context.config.evaluation.primary,
        "baseline": story.baseline.evaluation.figures["metrics"],
        "general_baseline": general_figures(story.baseline.evaluation, context.stages),
        "rounds": [_row(standing, context) for standing in story.rounds],
        "random_arm": arm_row(arm.evaluation, arm.trained, context.stages) if arm else None,
        "reason": story.reason,
    }


def _row(standing: Standing, context: Context) -> dict[str, Any]:
    return round_row(standing.evaluation, standing.trained, standing.mined, context.stages)


def _export(store: Any, folder: str, model: Model | None, base: Commit) -> dict[str, Any]:
    """The best model as a folder that SentenceTransformer opens."""
    if model is None:  # the data's own vectors are best: there is no model to export
        place = f"{folder}/none.json"
        store.write_json(place, {"model": None, "reason": "the vectors that came with the data were best"})
        return {place: {"bytes": store.size(place)}}
    local = fetch_folder(store, model.files, model.prefix)
    if model.reads_base:
        from training.encoders.adapter import AdapterEncoder, export_with_base

        base_folder = fetch_folder(store, base.files, base.figures["prefix"]) if "prefix" in base.figures else None
        target = Path(tempfile.mkdtemp(prefix="hardmine-export-"))
        export_with_base(AdapterEncoder.load(local), base_folder, target)
        local = target
    return upload_folder(local, store, folder)
