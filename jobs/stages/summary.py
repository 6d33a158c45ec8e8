"""A run's rounds as rows of figures, from commits alone: the same for a driver that has finished and for `status`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cluster.commits import Commit

MEASURED = ("embed", "search", "train")
"""Stages that say how much of their time was their own work; the rest of it is overhead."""
BASELINE = -1
"""Round of the off-the-shelf model."""
GENERAL = "general-"
"""How the names of the stages begin that read the general set."""


def round_row(evaluation: Commit, trained: Commit | None, mined: Commit | None, commits: Sequence[Commit]) -> dict[str, Any]:
    """One round as `--json` prints it."""
    figures = evaluation.figures
    return {
        "round": figures["round"],
        "negatives": trained.figures["negatives"] if trained else None,
        "train_loss": trained.figures["train_loss"] if trained else None,
        "steps": trained.figures["steps"] if trained else 0,
        "metrics": figures["metrics"],
        "hit_rate": mined.figures["hit_rate"] if mined else None,
        "verdict": figures["against_best"]["verdict"],
        "against_baseline": figures["against_baseline"],
        "against_previous": figures.get("against_previous"),  # evaluations of earlier versions have none
        "seconds": seconds(evaluation.name.removesuffix("-evaluate"), commits),
    } | ({"general": general} if (general := general_figures(evaluation, commits)) else {})


def general_figures(evaluation: Commit, commits: Sequence[Commit]) -> dict[str, Any] | None:
    """What the model of `evaluation` makes of the general set: metrics, and "against_baseline" for a trained one.

    None: it is not measured there, or what was is another model under the same name.
    """
    measured = next((commit for commit in commits if commit.name == f"{GENERAL}{evaluation.name}"), None)
    if measured is None or _model(measured, commits) != _model(evaluation, commits):
        return None
    metrics: dict[str, Any] = measured.figures["metrics"]
    against = measured.figures.get("against_baseline")
    return metrics | ({"against_baseline": against} if against else {})


def _model(evaluation: Commit, commits: Sequence[Commit]) -> str | None:
    """Digest of the model whose hits were measured; None: its vectors are not among the commits."""
    by_key = {commit.key: commit for commit in commits}
    hits = by_key.get(evaluation.inputs["hits"])
    vectors = by_key.get(hits.inputs["vectors"]) if hits is not None else None
    return vectors.inputs["model"] if vectors is not None else None


def arm_row(evaluation: Commit, trained: Commit | None, commits: Sequence[Commit]) -> dict[str, Any]:
    """The random arm; its verdict and `against_mined` compare it with the last mined round."""
    row = round_row(evaluation, trained, None, commits)
    names = ("metrics", "train_loss", "steps", "verdict", "against_baseline", "against_previous", "seconds")
    return {name: row[name] for name in names} | {"against_mined": evaluation.figures["against_best"]}


def seconds(name: str, commits: Sequence[Commit]) -> dict[str, float]:
    """Seconds of a round (named "round-01", "round-01-random") inside each stage's own work, and the overhead of all."""
    by_name = {commit.name: commit for commit in commits}
    hits = by_name.get(f"{name}-hits")
    named = {
        "embed": [commit for commit in commits if hits is not None and commit.key == hits.inputs["vectors"]][:1],
        "search": [
            by_name[key] for key in (f"{name}-{stage}" for stage in ("search", "pairs", "score", "hits")) if key in by_name
        ],
        "mine": [
            by_name[key]
            for key in (f"{name}-{stage}" for stage in ("teacher-pairs", "teacher", "mine", "report"))
            if key in by_name
        ],
        **{stage: [by_name[f"{name}-{stage}"]] if f"{name}-{stage}" in by_name else [] for stage in ("train", "evaluate")},
    }
    result = {
        stage: round(sum(c.seconds["work" if stage in MEASURED else "wall"] for c in found), 2) for stage, found in named.items()
    }
    overhead = sum(c.seconds["overhead"] for stage in MEASURED for c in named[stage])
    return result | {"overhead": round(overhead, 2)}
