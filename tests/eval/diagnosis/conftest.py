"""Evidence made by hand: a healthy run, and whatever a test changes in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from eval.diagnosis.evidence import Arm, Evidence, Measurement, Mining, Slice, Training
from eval.significance import Interval

STEPS = 200
HEALTHY: Mapping[str, float] = {
    "positive_probability": 0.6,
    "hardest_weight": 0.3,
    "effective_negatives": 30.0,
    "negatives_per_query": 200.0,
    "dead_negatives": 0.6,
    "above_hard": 0.02,
    "above_positive": 0.01,
    "gradient_share_hard": 0.4,
    "mean_pairwise_cosine": 0.1,
    "uniformity": -3.5,
    "alignment": 0.9,
    "cosine_in_batch": 0.05,
    "temperature": 0.05,
    "gradient_norm": 0.5,
}
Ends = tuple[float, float, float]


def interval(ends: Ends | None, queries: int = 400) -> dict[str, Interval]:
    """Of the primary figure, (mean, low, high); empty for None."""
    return {} if ends is None else {"recall@3": Interval(*ends, queries)}


@pytest.fixture
def make() -> Callable[..., Evidence]:
    """A healthy run of one arm; every argument changes one thing, and None takes it away."""

    def make(
        *,
        arm: str = "mined",
        steps: int = STEPS,
        loss: tuple[float, float] | None = (2.0, 1.0),
        validation: Sequence[float] = (0.5, 0.55, 0.6, 0.65),
        previous: Ends | None = (0.04, 0.01, 0.07),
        against_mined: Ends | None = None,
        recall: float = 0.5,
        attainable: float = 1.0,
        queries: int = 400,
        results: Mapping[str, float] | None = None,
        before: Mapping[str, float] | None = None,
        scores: Mapping[str, float] | None = None,
        slices: Sequence[tuple[str, Ends, int]] = (),
        general: Ends | None = None,
        leakage: Mapping[str, Any] | None = None,
        mining: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        **late: float | None,
    ) -> Evidence:
        columns = {name: np.full(steps, value) for name, value in {**HEALTHY, **late}.items() if value is not None}
        columns["step"] = np.arange(1, steps + 1, dtype=np.float64)
        if loss is not None:
            columns["loss"] = np.linspace(*loss, steps)
        at = np.round(np.linspace(steps / max(1, len(validation)), steps, len(validation)))
        training = Training("round-01", 1, columns, at, np.array(validation, dtype=np.float64))
        baseline = Measurement("baseline", -1, queries, {"recall@3": 0.2}, results=before or {})
        measured = Measurement(
            "round-01",
            1,
            queries,
            {"recall@3": recall},
            interval((0.3, 0.27, 0.33)),
            interval(previous, queries),
            interval(against_mined) if arm == "random" else {},
            results=results or {},
            scores=scores or {},
            attainable={"recall@3": attainable},
            slices=[Slice("source", value, count, {}, Interval(*ends, count)) for value, ends, count in slices],
        )
        found = Mining(
            "round-01-mine",
            1,
            1000,
            **{"candidates": 10_000, "hit_rate": 0.9, "queries_short": 0, "queries_empty": 0, "suspected": 10, **(mining or {})},
        )
        arms = [Arm(arm, baseline, [training], [measured], [found] if arm == "mined" else [])]  # type: ignore[arg-type]
        if arm == "mined" and against_mined is not None:
            rival = Measurement("round-01-random", 1, queries, {"recall@3": recall}, against_mined=interval(against_mined))
            arms.append(Arm("random", baseline, [], [rival]))
        sets = (
            []
            if general is None
            else [
                Measurement("general-baseline", -1, queries, {"recall@3": 0.5}),
                Measurement("general-round-01", 1, queries, {"recall@3": 0.4}, against_baseline=interval(general, queries)),
            ]
        )
        return Evidence(
            arms,
            baseline=baseline,
            general=sets,
            leakage=leakage or {},
            settings={"name": "run", **(settings or {})},
            config=("run.toml",),
        )

    return make
