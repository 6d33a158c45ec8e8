"""Over-fitting over the rounds of an arm, on figures like those of really over-trained models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from eval.diagnosis.evidence import Arm, Evidence, Measurement, Training
from eval.diagnosis.findings import Finding
from eval.diagnosis.rank import diagnose
from eval.significance import Interval

QUERIES = 900


def measured(name: str, recall: float, change: float | None = None, half: float = 0.0195) -> Measurement:
    against = {} if change is None else {"recall@3": Interval(change, change - half, change + half, QUERIES)}
    return Measurement(name, int(name[6:8]), QUERIES, {"recall@3": recall}, against_previous=against)


def trained(name: str, losses: Sequence[float], validation: Sequence[float] = (0.6, 0.6)) -> Training:
    steps = 200
    columns = {"loss": np.interp(np.linspace(0, 1, steps), np.linspace(0, 1, len(losses)), losses)}
    columns |= {
        "positive_probability": np.full(steps, 0.8),
        "negatives_per_query": np.full(steps, 200.0),
        "above_hard": np.full(steps, 0.03),
    }
    return Training(name, int(name[6:8]), columns, np.linspace(50, steps, len(validation)), np.array(validation))


def judged(arm: Arm) -> Finding:
    return diagnose(Evidence([arm]))[0]


def test_an_adapter_whose_loss_falls_and_whose_recall_falls_beyond_doubt_is_over_fitted() -> None:
    # 4 epochs a round on 4,400 queries: loss 0.81 -> 0.20, recall@3 -3.4 points [-5.3, -1.4]
    arm = Arm(
        "random",
        measured("round-00", 0.565),
        [trained("round-02-random", (0.81, 0.81, 0.5, 0.2, 0.2))],
        [measured("round-02-random", 0.531, -0.034)],
    )
    found = judged(arm)
    assert (found.name, found.severity) == ("overfitting", "warning")
    assert [figure.figure for figure in found.evidence][:2] == ["lost", "loss fell by"]
    assert "beyond doubt" in found.evidence[0].text
    assert found.evidence[1].value == pytest.approx(0.75, abs=0.03)


def test_a_mined_arm_that_lost_what_the_warm_up_had_while_its_loss_fell_is_over_fitted() -> None:
    # loss 0.81 -> 0.34, recall@3 0.565 -> 0.549: no single round is worse beyond doubt
    arm = Arm(
        "mined",
        measured("round-00", 0.565),
        [trained("round-01", (0.81, 0.8, 0.6, 0.5)), trained("round-02", (0.6, 0.5, 0.34, 0.34))],
        [measured("round-01", 0.558, -0.007), measured("round-02", 0.549, -0.009)],
    )
    found = judged(arm)
    assert found.name == "overfitting"
    assert "no more than chance" in found.evidence[0].text
    assert "training.epochs=" in found.next


def test_a_mined_arm_that_lost_something_without_a_reason_is_not_healthy() -> None:
    arm = Arm(
        "mined", measured("round-00", 0.565), [trained("round-01", (0.81, 0.8, 0.8, 0.8))], [measured("round-01", 0.549, -0.016)]
    )
    found = judged(arm)
    assert (found.name, found.severity) == ("not_enough_evidence", "note")
    assert "may be chance" in found.summary


@pytest.mark.parametrize("last", [0.561, 0.565, 0.6])
def test_an_arm_that_lost_less_than_half_a_point_is_healthy_however_its_loss_falls(last: float) -> None:
    arm = Arm(
        "mined",
        measured("round-00", 0.565),
        [trained("round-01", (0.81, 0.5, 0.2, 0.2))],
        [measured("round-01", last, last - 0.565)],
    )
    assert judged(arm).name == "healthy"


def test_the_best_round_counts_not_only_the_start() -> None:
    arm = Arm(
        "mined",
        measured("round-00", 0.50),
        [trained("round-01", (2.0, 1.0)), trained("round-02", (0.9, 0.3))],
        [measured("round-01", 0.60, 0.10), measured("round-02", 0.57, -0.03)],
    )
    found = judged(arm)
    assert found.name == "overfitting"
    assert found.evidence[0].where == "round-02 against round-01"


def test_too_few_queries_say_nothing() -> None:
    few = [
        Measurement(name, 1, 20, {"recall@3": recall}, against_previous={"recall@3": Interval(-0.1, -0.2, 0.0, 20)})
        for name, recall in (("round-00", 0.6), ("round-01", 0.5))
    ]
    arm = Arm("mined", few[0], [trained("round-01", (0.81, 0.5, 0.2, 0.2))], few[1:])
    assert judged(arm).name == "not_enough_evidence"


def test_the_loss_counts_since_the_best_model_only() -> None:
    # the first round took the loss down and gained; the second lost a little and its loss stood still
    arm = Arm(
        "mined",
        measured("round-00", 0.31),
        [trained("round-01", (3.3, 1.0)), trained("round-02", (0.8, 0.8))],
        [measured("round-01", 0.454, 0.144), measured("round-02", 0.446, -0.008)],
    )
    assert judged(arm).name == "not_enough_evidence"


def test_short_rounds_count_together() -> None:
    rounds = [Training(f"round-{n:02d}", n, {"loss": np.full(20, loss)}) for n, loss in ((1, 0.6), (2, 0.4), (3, 0.2))]
    models = [measured(f"round-{n:02d}", 0.46 - 0.01 * n, -0.01) for n in (1, 2, 3)]
    assert judged(Arm("mined", measured("round-00", 0.46), rounds, models)).name == "overfitting"
    assert judged(Arm("mined", measured("round-00", 0.46), rounds[:1], models[:1])).name == "not_enough_evidence"


def test_a_fall_beyond_doubt_is_a_warning_even_where_steps_are_few() -> None:
    few = Training("round-01", 1, {"loss": np.full(20, 0.6)})
    found = judged(Arm("mined", measured("round-00", 0.46), [few], [measured("round-01", 0.42, -0.04)]))
    assert (found.name, found.severity) == ("not_enough_evidence", "warning")
    assert "20 steps" in found.summary
