"""`hardmine gate`: may the model that a run kept be shipped? From commits and a measured latency to checks and a list.

Leaves gate.json in the run's folder; the command then writes the report anew. Starts no Ray and changes nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from pydantic import ConfigDict, create_model

from cluster.commits import Ledger
from cluster.errors import ConfigError
from cluster.storage.store import Store
from eval.gate.verdict import make_checks, passed, verdict
from eval.settings import EvaluationSettings
from eval.verdict import too_little
from jobs.config.config import put_override
from jobs.config.strict import validate
from jobs.finished.before_after import before_after, changed_queries
from jobs.finished.finished_run import FinishedRun, open_finished
from jobs.finished.gate.figures import gather
from jobs.finished.gate.subject import Subject, choose, choose_pair
from jobs.record.stages import Kind, ModelName

WORST = 20
"""Queries listed that got worse."""
SECTION = "evaluation.gate."
READ = ("gate", "num_hits", "primary", "confidence", "resamples")
"""Settings of `[evaluation]` that a gate reads."""


def gate(
    store: Store,
    overrides: Sequence[str] = (),
    *,
    number: int | None = None,
    with_reranker: bool = False,
    without_latency: str | None = None,
) -> dict[str, Any]:
    """`judge` a finished run, and leave the answer in gate.json beside it."""
    result = judge(store, overrides, number=number, with_reranker=with_reranker, without_latency=without_latency)
    store.write_json("gate.json", result)
    return result


def judge(
    store: Store,
    overrides: Sequence[str] = (),
    *,
    number: int | None = None,
    with_reranker: bool = False,
    without_latency: str | None = None,
) -> dict[str, Any]:
    """What gate.json holds; writes nothing.

    Args:
        overrides: evaluation.gate.key=value, over what the run's run.json says.
        number: the round to judge, -1 the off-the-shelf model; None: the one that was kept.
        with_reranker: judge the best retriever with a re-ranker instead.
        without_latency: why it is not measured how long a query takes; None: it is.

    Raises:
        ConfigError: no finished run, no such round, or a setting or metric that does not exist.
        ArtifactError: something of the run is missing or damaged.
    """
    run = open_finished(store)
    evaluation = read_settings(run, overrides)
    subject = choose_pair(run) if with_reranker else choose(run, number)
    _check_model(run, subject)
    figures, timed = gather(run, subject, evaluation, without_latency=without_latency)
    checks = make_checks(evaluation.gate, replace(figures, nothing_new=subject.is_baseline and number is None))
    result = {
        "passed": passed(checks),
        "verdict": verdict(checks),
        "output": store.root,
        "round": subject.round,
        "reranker": subject.reranking["pair"]["reranker"] if subject.reranking else None,
        "split": subject.split,
        "evaluation": subject.model.evaluation.key,
        "primary": evaluation.primary,
        "confidence": evaluation.confidence,
        "queries": subject.model.queries,
        "checks": [check.as_json() for check in checks],
        "latency": timed,
        "notes": [*subject.notes, *_doubts(subject)],
    }
    return result | _worse(run, subject, evaluation) | {"settings": evaluation.gate.model_dump(mode="json")}


def _doubts(subject: Subject) -> list[str]:
    """What keeps this answer from being relied on."""
    doubt = too_little(subject.model.queries - subject.model.without_positive)
    return [f"whatever the answer, it rests on too little: {doubt}"] if doubt else []


def _check_model(run: FinishedRun, subject: Subject) -> None:
    """Raises DamagedObject: the model that is judged is not the one that was measured, byte for byte."""
    if subject.round == run.best_round:
        commit = run.record.finish
    elif subject.is_baseline:
        commit = run.record.find(Kind.BASE)
    else:
        commit = run.record.find(ModelName(subject.round).source.kind, ModelName(subject.round))
    if commit is not None:
        Ledger(run.store).verify(commit, content=True)


def read_settings(run: FinishedRun, overrides: Sequence[str]) -> EvaluationSettings:
    """`[evaluation]` as run.json has it, as far as a gate reads it, with overrides of `[evaluation.gate]`.

    Raises:
        ConfigError: an override is of another section, unknown or wrong.
    """
    there = run.settings.get("evaluation", {})
    values: dict[str, Any] = {"evaluation": {name: there[name] for name in READ if name in there}}
    for override in overrides:
        key = override.partition("=")[0].strip()
        if not key.startswith(SECTION):
            raise ConfigError(
                f"expected overrides of the gate's own settings, {SECTION}key=value, found {key!r}; the run is "
                f"finished: other settings need `hardmine run`. For example {SECTION}min_gain=2"
            )
        put_override(values, override)
    source = f"{run.store.url('run.json')}{' with overrides from the command line' if overrides else ''}"
    whole = create_model("Overridden", __config__=ConfigDict(extra="forbid"), evaluation=(EvaluationSettings, ...))
    return cast(EvaluationSettings, validate(whole, values, source=source).evaluation)  # type: ignore[attr-defined]


def _worse(run: FinishedRun, subject: Subject, evaluation: EvaluationSettings) -> dict[str, Any]:
    """How many queries changed, and those that lost most with their first hits under both models."""
    if subject.is_baseline:
        return {"better_total": 0, "worse_total": 0, "worse": []}
    rows, change = changed_queries(run.store, subject.baseline.evaluation, subject.model.evaluation, evaluation.primary)
    lost = int((change < 0).sum())
    shown = min(lost, WORST)
    sides = before_after(run.store, run.commit(Kind.INGEST), rows[:shown], subject.baseline.hits, subject.model.hits)
    return {
        "better_total": int((change > 0).sum()),
        "worse_total": lost,
        "worse": [{"change": round(float(value), 6)} | side for value, side in zip(change[:shown], sides, strict=True)],
    }
