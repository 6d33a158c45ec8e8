"""Checks of what was measured of a model: its metrics, what it gained, how long a query takes, what it forgot."""

from __future__ import annotations

from collections.abc import Iterator

from eval.gate.check import Check, bound, in_points, not_checked, switched_off
from eval.gate.figures import GateFigures
from eval.gate.settings import BARS, GateSettings
from eval.metrics import LOWER_IS_BETTER, metric_name

NO_GENERAL = "there is no general set (evaluation.general)"


def metric_checks(settings: GateSettings, figures: GateFigures) -> Iterator[Check]:
    """Those of the bar, then those of evaluation.gate.metrics: both hold where both are set."""
    named = [(metric, metric, metric, gate) for metric, gate in BARS[settings.bar].items()]
    named += [(metric, f"{metric}:min", f"{metric}:max", gate) for metric, gate in settings.metrics.items()]
    for metric, least, most, gate in named:
        what, figure, best = metric_name(metric), figures.metrics.get(metric), figures.attainable.get(metric)
        unit = "share" if metric == "bad_top1" else "figure"
        yield from bound(least, what, figure, least=gate.min, unit=unit, attainable=best)
        yield from bound(most, what, figure, most=gate.max, unit=unit, attainable=best)


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
            f"gain in {metric_name(metric)} over the off-the-shelf model",
            in_points(gain) if gain else None,
            least=least,
            unit="points",
            attainable=_attainable_gain(figures, metric),
            not_significant=figures.not_significant.get(metric),
        )


def loss_checks(settings: GateSettings, figures: GateFigures) -> Iterator[Check]:
    """No metric without a threshold for its gain may be significantly worse than off the shelf."""
    if figures.worse is None:
        yield not_checked("losses", "the metrics are not compared with the off-the-shelf model", threshold=0.0, unit="count")
        return
    own = {metric for metric, gate in settings.metrics.items() if gate.min_gain is not None}
    if settings.min_gain is not None:
        own.add(figures.primary)
    lost = [metric for metric in figures.worse if metric not in own]
    what = "figures significantly worse than off the shelf"
    named = f" ({', '.join(map(metric_name, lost))})" if lost else ""
    yield from bound("losses", what + named, float(len(lost)), most=0.0, unit="count")


def _attainable_gain(figures: GateFigures, metric: str) -> float | None:
    """In points, what a perfect model gains over the off-the-shelf one."""
    best, value, gain = figures.attainable.get(metric), figures.metrics.get(metric), figures.gains.get(metric)
    if best is None or value is None or gain is None:
        return None
    if metric in LOWER_IS_BETTER:
        return 100 * (value.mean + gain.mean - best)
    return 100 * (best - value.mean + gain.mean)


def latency_checks(settings: GateSettings, figures: GateFigures) -> Iterator[Check]:
    """What a query takes longer than off the shelf."""
    latency, why = figures.latency, figures.missing.get("latency", "it was not measured")
    for name, setting, what, value, most, unit, reason in (
        (
            "added_latency_ms",
            "max_added_ms",
            "change of the median time of one query against off the shelf",
            latency.added_ms if latency else None,
            settings.max_added_ms,
            "ms",
            why,
        ),
        (
            "added_latency_p95",
            "max_added_p95",
            "change of the 95th percentile of that time",
            latency.p95_increase if latency else None,
            settings.max_added_p95,
            "change",
            figures.missing.get("latency:p95", why),
        ),
    ):
        if most is None:
            yield switched_off(name, setting)
        yield from bound(name, what, value, most=most, unit=unit, why=reason, is_noisy=True)


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
        f"change of {metric_name(figures.primary)} on the general set against off the shelf",
        in_points(figures.general) if figures.general else None,
        least=-settings.max_forgetting,
        unit="points",
        why=why or "it was not measured",
    )
