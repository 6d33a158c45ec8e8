"""Checks of what was measured of a model: its metrics, what it gained, how long a query takes, what it forgot."""

from __future__ import annotations

from collections.abc import Iterator

from eval.gate.check import Check, bound, in_points, not_checked, switched_off
from eval.gate.figures import GateFigures
from eval.gate.settings import GateSettings
from eval.metrics import metric_name

ALWAYS = ("recall@3", "ndcg@10", "bad_top1")
"""Metrics that every model is held against."""
NO_GENERAL = "there is no general set (evaluation.general)"


def metric_checks(settings: GateSettings, figures: GateFigures) -> Iterator[Check]:
    """The three that every model is held against, then those of evaluation.gate.metrics: both hold where both are set."""
    least = {"recall@3": settings.min_recall_3, "ndcg@10": settings.min_ndcg_10}
    for metric, setting in zip(ALWAYS, ("min_recall_3", "min_ndcg_10", "max_bad_top1"), strict=True):
        low, high = least.get(metric), settings.max_bad_top1 if metric == "bad_top1" else None
        if low is None and high is None:
            yield switched_off(metric, setting)
        yield from bound(metric, metric_name(metric), figures.metrics.get(metric), least=low, most=high, unit=_unit(metric))
    for metric, gate in settings.metrics.items():
        figure, unit = figures.metrics.get(metric), _unit(metric)
        yield from bound(f"{metric}:min", metric_name(metric), figure, least=gate.min, unit=unit)
        yield from bound(f"{metric}:max", metric_name(metric), figure, most=gate.max, unit=unit)


def gain_checks(settings: GateSettings, figures: GateFigures) -> Iterator[Check]:
    """Of the primary figure, and of those in evaluation.gate.metrics; of two thresholds for one figure the higher."""
    wanted = {metric: gate.min_gain for metric, gate in settings.metrics.items() if gate.min_gain is not None}
    if settings.min_gain is not None:
        wanted[figures.primary] = max(settings.min_gain, wanted.get(figures.primary, settings.min_gain))
    elif figures.primary not in wanted:
        yield switched_off(f"gain:{figures.primary}", "min_gain")
    for metric, least in sorted(wanted.items(), key=lambda pair: pair[0] != figures.primary):
        gain = figures.gains.get(metric)
        yield from bound(
            f"gain:{metric}",
            f"the gain in {metric_name(metric)} over the off-the-shelf model",
            in_points(gain) if gain else None,
            least=least,
            unit="points",
        )


def latency_checks(settings: GateSettings, figures: GateFigures) -> Iterator[Check]:
    """What a query takes longer than off the shelf."""
    latency, why = figures.latency, figures.missing.get("latency", "it was not measured")
    for name, setting, what, value, most, unit, reason in (
        (
            "added_latency_ms",
            "max_added_ms",
            "the median time of one query, against off the shelf, changes by",
            latency.added_ms if latency else None,
            settings.max_added_ms,
            "ms",
            why,
        ),
        (
            "added_latency_p95",
            "max_added_p95",
            "the 95th percentile of that time changes by",
            latency.p95_increase if latency else None,
            settings.max_added_p95,
            "change",
            figures.missing.get("latency:p95", why),
        ),
    ):
        if most is None:
            yield switched_off(name, setting)
        yield from bound(name, what, value, most=most, unit=unit, why=reason, verb="")


def general_checks(settings: GateSettings, figures: GateFigures) -> Iterator[Check]:
    """What the model lost on the general set."""
    if settings.max_forgetting is None:
        yield switched_off("general", "max_forgetting")
        return
    why = figures.missing.get("general")
    if figures.general is None and why is None:
        yield not_checked("general", NO_GENERAL, threshold=-settings.max_forgetting, unit="points", wanted=False)
        return
    yield from bound(
        "general",
        f"the change of {metric_name(figures.primary)} on the general set",
        in_points(figures.general) if figures.general else None,
        least=-settings.max_forgetting,
        unit="points",
        why=why or "it was not measured",
    )


def _unit(metric: str) -> str:
    return "share" if metric == "bad_top1" else "figure"
