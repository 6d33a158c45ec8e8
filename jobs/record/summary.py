"""A run as `--json` prints it, from its record alone."""

from __future__ import annotations

from typing import Any

from cluster.commits import Commit
from cluster.storage.store import Store
from eval.verdict import decide
from jobs.record.record import MeasuredModel, RunRecord
from jobs.record.stages import Chosen
from jobs.record.usage import LOCAL_COPY, copy_command, usage_code


def summary_of(finish: Commit, store: Store) -> dict[str, Any]:
    """What `hardmine run --json` prints of a finished run, with its present addresses: its folder may have moved."""
    summary = finish.figures["summary"]
    model = store.url(summary["model"]) if summary.get("model") else None
    usage = usage_code(path=LOCAL_COPY if store.remote else model, **finish.figures["usage"]) if model else None
    copy = copy_command(model, store.settings.resolved_endpoint()) if model and store.remote else None
    tensorboard = store.url("tensorboard") if not store.remote and store.list("tensorboard") else None
    return {**summary, "output": store.root, "model": model, "copy": copy, "usage": usage, "tensorboard": tensorboard}


def summary_json(record: RunRecord, *, name: str, output: str, primary: str, patience: int, model: str | None) -> dict[str, Any]:
    """The summary as the last commit holds it.

    Args:
        output: the run's folder, "" in a commit. model: folder of the kept model in it; None: the data's vectors were best.
    """
    best = record.best(primary)
    assert best is not None
    return {
        "name": name,
        "output": output,
        "model": model,
        "best_round": best.round,
        "primary": primary,
        **rounds_json(record),
        "reason": why_ended(record, patience),
        "test": _test_json(record),
    }


def why_ended(record: RunRecord, patience: int) -> str:
    """Why no further round was mined; "": nothing was mined."""
    verdicts: list[Any] = [model.verdict for model in record.rounds if model.arm == "mined"]
    ruling = decide(verdicts, patience=patience)
    if not verdicts or ruling.stops:
        return ruling.reason if verdicts else ""
    return "The mined round is done." if len(verdicts) == 1 else f"All {len(verdicts)} mined rounds are done."


def rounds_json(record: RunRecord) -> dict[str, Any]:
    """The models measured so far."""
    baseline, arm = record.baseline, record.random_arm
    return {
        "baseline": baseline.metrics if baseline else None,
        "attainable": baseline.figures.get("attainable") if baseline else None,
        "general_baseline": _general_json(baseline) if baseline else None,
        "rounds": [_round_json(model) for model in (*record.rounds, *record.merged)],
        "random_arm": _arm_json(arm) if arm else None,
        "reranker": reranker_json(record),
        "warnings": tracker_warnings(record),
    }


def reranker_json(record: RunRecord) -> dict[str, Any] | None:
    """The table of retrievers and re-rankers, and what to ship; None: there is no re-ranker."""
    commit = record.reranked
    if commit is None:
        return None
    return {**commit.figures["reranking"], **{name: commit.figures[name] for name in ("round", "split")}}


def tracker_warnings(record: RunRecord) -> list[str]:
    """What happened to trackers while models were trained: nobody looks at a line that has scrolled by."""
    return [
        f"{model.name}: {text}"
        for model in record.models
        if model.train
        for text in model.train.figures.get("tracker_warnings", [])
    ]


def _round_json(model: MeasuredModel) -> dict[str, Any]:
    trained = model.train.figures if model.train else {}
    general = _general_json(model)
    return {
        "round": model.round,
        "negatives": trained.get("negatives"),
        "train_loss": trained.get("train_loss"),
        "steps": trained.get("steps", 0),
        "metrics": model.metrics,
        "hit_rate": model.hit_rate,
        "judged": model.judged[0],
        "judged_left_out": model.judged[1],
        "verdict": model.verdict,
        "against_baseline": model.change("baseline"),
        "against_previous": model.change("previous"),
        "seconds": model.seconds,
    } | ({"general": general} if general else {})


def _arm_json(model: MeasuredModel) -> dict[str, Any]:
    """The random arm; its verdict and `against_mined` compare it with the last mined round."""
    row = _round_json(model)
    names = ("metrics", "train_loss", "steps", "verdict", "against_baseline", "against_previous", "seconds")
    return {name: row[name] for name in names} | {"against_mined": model.change("best")}


def _general_json(model: MeasuredModel) -> dict[str, Any] | None:
    if model.general is None:
        return None
    figures: dict[str, Any] = dict(model.general.figures["metrics"])
    against = model.general.figures.get("against_baseline")
    return figures | ({"against_baseline": against} if against else {})


def _test_json(record: RunRecord) -> dict[str, Any] | None:
    """The figures on the test split; None: it was not looked at."""
    models = {chosen: model for chosen in Chosen if (model := record.measured(chosen)) is not None}
    return {
        str(chosen): {"round": model.round, "metrics": model.metrics, "against_baseline": model.figures.get("against_baseline")}
        | {"attainable": model.figures.get("attainable")}
        for chosen, model in models.items()
    } or None
