"""Ship or not: from figures to checks, each with its threshold, its interval and one sentence. Nothing is measured here.

    checks = make_checks(settings, figures)
    passed(checks), verdict(checks)

A check without figures is skipped: it neither passes nor fails, unless `strict` says so. A figure whose interval crosses
the threshold passes or fails by its mean and says that it may be chance; `require_significance` lets none pass like that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from eval.diagnosis.evidence import Slice
from eval.gate_settings import GateSettings
from eval.latency import Latency
from eval.metrics import metric_name
from eval.significance import Interval

TINY = 1e-9
"""A mean of floats may miss the threshold that it is by this."""
SHOWN = 3
"""Slices and failures that one sentence names."""
FORMS = {
    "figure": "{:.3f}",
    "share": "{:.1%}",
    "points": "{:+.1f} points",
    "ms": "{:+.2f} ms",
    "change": "{:+.1%}",
    "ratio": "{:.2f}",
    "count": "{:.0f}",
}
"""Unit of a figure -> how it is written. A figure, a share and a change are fractions of one."""


@dataclass(frozen=True)
class Check:
    """One figure against one threshold."""

    name: str
    text: str
    """One sentence for a person."""
    threshold: float
    value: float | None = None
    """None: it is not known."""
    passed: bool | None = None
    """None: skipped."""
    interval: Interval | None = None
    """None: the figure has none."""
    uncertain: bool = False
    """The interval crosses the threshold."""
    unit: str = "figure"
    """Of value, threshold and interval; see FORMS."""

    def as_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "name": self.name,
            "value": self.value,
            "threshold": self.threshold,
            "passed": self.passed,
            "interval": asdict(self.interval) if self.interval else None,
            "unit": self.unit,
            "uncertain": self.uncertain,
            "skipped": self.value is None,
            "text": self.text,
        }


@dataclass(frozen=True, eq=False)
class GateFigures:
    """What is known of a model and of the off-the-shelf one. What is missing is skipped, for the reason in `missing`."""

    primary: str
    metrics: Mapping[str, Interval]
    """Mean of each metric with its interval."""
    gains: Mapping[str, Interval] = field(default_factory=dict)
    """Metric -> what it is better by than off the shelf, a share of one; above 0 is better, also for bad_top1."""
    results: Mapping[str, float] = field(default_factory=dict)
    """eval/diversity.py, of the first ten results of all queries."""
    baseline_results: Mapping[str, float] = field(default_factory=dict)
    slices: Sequence[Slice] = ()
    general: Interval | None = None
    """What the primary figure is better by on the general set."""
    latency: Latency | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    """Kind of figures ("results", "slices", "general", "latency", "latency:p95") -> why there are none. A kind that is in
    neither is left out: the data has no such thing."""
    is_baseline: bool = False
    """The model is the off-the-shelf one: there is nothing to compare it with."""
    nothing_new: bool = False
    """It is that because no round was better."""


def make_checks(settings: GateSettings, figures: GateFigures) -> list[Check]:
    """Every check that is switched on, in the order of the settings."""
    found = list(_metrics(settings, figures))
    if not figures.is_baseline:
        found += [
            *_gains(settings, figures),
            *_latency(settings, figures),
            *_results(settings, figures),
            *_slices(settings, figures),
            *_general(settings, figures),
        ]
    if figures.nothing_new:
        found.append(
            Check(
                "new_model",
                "no round was better than the off-the-shelf model: there is nothing new to ship",
                threshold=1.0,
                value=0.0,
                passed=False,
                unit="count",
            )
        )
    return [_judged(check, settings) for check in found]


def passed(checks: Sequence[Check]) -> bool:
    """No check failed, and at least one was made."""
    return all(check.passed is not False for check in checks) and any(check.passed for check in checks)


def verdict(checks: Sequence[Check]) -> str:
    """ "yes" or "no" with the reasons: one sentence."""
    failed = [check for check in checks if check.passed is False]
    good = [check for check in checks if check.passed]
    if failed:
        more = f"; and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
        return f"no: {'; '.join(check.text for check in failed[:SHOWN])}{more}"
    if not good:
        return "no: nothing was checked; set thresholds in [evaluation.gate], or evaluate the run again"
    unsure = [check.name for check in good if check.uncertain]
    skipped = [check.name for check in checks if check.passed is None]
    return (
        f"yes: {len(good)} {'check' if len(good) == 1 else 'checks'} passed"
        + (f"; {', '.join(unsure)} by less than the interval, so that may be chance" if unsure else "")
        + (f"; {', '.join(skipped)} skipped" if skipped else "")
    )


def _metrics(settings: GateSettings, figures: GateFigures) -> Iterator[Check]:
    for metric, least in (("recall@3", settings.min_recall_3), ("ndcg@10", settings.min_ndcg_10)):
        yield from _bound(metric, metric_name(metric), figures.metrics.get(metric), least=least)
    yield from _bound(
        "bad_top1", metric_name("bad_top1"), figures.metrics.get("bad_top1"), most=settings.max_bad_top1, unit="share"
    )
    for metric, gate in settings.metrics.items():
        found, unit = figures.metrics.get(metric), "share" if metric == "bad_top1" else "figure"
        yield from _bound(f"{metric}:min", metric_name(metric), found, least=gate.min, unit=unit)
        yield from _bound(f"{metric}:max", metric_name(metric), found, most=gate.max, unit=unit)


def _gains(settings: GateSettings, figures: GateFigures) -> Iterator[Check]:
    wanted = {figures.primary: settings.min_gain} | {
        metric: gate.min_gain for metric, gate in settings.metrics.items() if gate.min_gain is not None
    }
    for metric, least in wanted.items():
        found = figures.gains.get(metric)
        yield from _bound(
            f"gain:{metric}",
            f"the gain in {metric_name(metric)} over the off-the-shelf model",
            in_points(found) if found else None,
            least=least,
            unit="points",
        )


def _latency(settings: GateSettings, figures: GateFigures) -> Iterator[Check]:
    found, why = figures.latency, figures.missing.get("latency", "it was not measured")
    yield from _bound(
        "added_latency_ms",
        "the median time of one query, against off the shelf, changes by",
        found.added_ms if found else None,
        most=settings.max_added_ms,
        unit="ms",
        why=why,
        verb="",
    )
    yield from _bound(
        "added_latency_p95",
        "the 95th percentile of that time changes by",
        found.p95_increase if found else None,
        most=settings.max_added_p95,
        unit="change",
        why=figures.missing.get("latency:p95", why),
        verb="",
    )


def _results(settings: GateSettings, figures: GateFigures) -> Iterator[Check]:
    now, was, why = figures.results, figures.baseline_results, figures.missing.get("results")
    if why is not None:
        for name, threshold, unit in (
            ("popularity", settings.max_popularity_gain, "points"),
            ("coverage", settings.min_coverage, "ratio"),
            ("gini", settings.max_gini_gain, "points"),
        ):
            yield from _bound(name, name, None, most=threshold, unit=unit, why=why)
        return
    if "popularity" in now and "popularity" in was:
        reference = max(was["popularity"], now.get("relevant_popularity", 0.0))
        relevant = now.get("relevant_popularity")
        yield from _bound(
            "popularity",
            f"popularity of the first ten results: mean percentile {100 * now['popularity']:.0f}, "
            f"off the shelf {100 * was['popularity']:.0f}"
            + ("" if relevant is None else f", of the relevant items {100 * relevant:.0f}")
            + "; against the higher of the others,",
            100 * (now["popularity"] - reference),
            most=settings.max_popularity_gain,
            unit="points",
            verb="",
        )
    if now.get("coverage") is not None and was.get("coverage"):
        yield from _bound(
            "coverage",
            f"the share of the corpus that is shown to anyone ({now['coverage']:.1%}, off the shelf "
            f"{was['coverage']:.1%}), as a share of that,",
            now["coverage"] / was["coverage"],
            least=settings.min_coverage,
            unit="ratio",
        )
    for name, told, most in (
        ("gini", "the Gini coefficient of how often items are shown", settings.max_gini_gain),
        ("similarity", "the likeness of one query's results to each other", settings.max_similarity_gain),
    ):
        if name in now and name in was:
            yield from _bound(
                name,
                f"{told} ({now[name]:.3f}, off the shelf {was[name]:.3f}) changes by",
                100 * (now[name] - was[name]),
                most=most,
                unit="points",
                verb="",
            )


def _slices(settings: GateSettings, figures: GateFigures) -> Iterator[Check]:
    large = [one for one in figures.slices if one.queries >= settings.slice_queries]
    why = figures.missing.get("slices")
    if not large and why is None:
        if not figures.slices:
            return
        why = f"none of {len(figures.slices)} slices has {settings.slice_queries} queries (evaluation.gate.slice_queries)"
    if settings.slices:
        yield _worse_slices(large, settings, why)
    if settings.min_slice is not None:
        known = [one for one in large if one.metrics.get(figures.primary) is not None]
        lowest = min(known, key=lambda one: one.metrics[figures.primary], default=None)
        told = f"the lowest {metric_name(figures.primary)} of a slice" + (f" ({_name(lowest)})" if lowest else "")
        yield from _bound(
            "slice_floor",
            told,
            lowest.metrics[figures.primary] if lowest else None,
            least=settings.min_slice,
            why=why or "no slice has that figure",
        )


def _worse_slices(large: Sequence[Slice], settings: GateSettings, why: str | None) -> Check:
    compared = [(one, one.against_baseline) for one in large if one.against_baseline is not None]
    if not compared:
        return Check(
            "slices",
            f"slices were skipped: {why or 'none of them is compared with the off-the-shelf model'}",
            threshold=0.0,
            unit="count",
        )
    worse = sorted(
        ((one, change) for one, change in compared if one.significant and change.mean < 0), key=lambda pair: pair[1].mean
    )
    of = f"{len(compared)} slices with at least {settings.slice_queries} queries"
    if not worse:
        return Check("slices", f"none of {of} is significantly worse than off the shelf: passed", 0.0, 0.0, True, unit="count")
    named = ", ".join(
        f"{_name(one)} ({100 * change.mean:+.1f} points over {one.queries:,} queries)" for one, change in worse[:SHOWN]
    )
    return Check(
        "slices",
        f"{len(worse)} of {of} {'is' if len(worse) == 1 else 'are'} significantly worse than off the shelf, "
        f"asked for none: {named}",
        0.0,
        float(len(worse)),
        False,
        unit="count",
    )


def _general(settings: GateSettings, figures: GateFigures) -> Iterator[Check]:
    why = figures.missing.get("general")
    if (figures.general is None and why is None) or settings.max_forgetting is None:
        return
    yield from _bound(
        "general",
        f"the change of {metric_name(figures.primary)} on the general set",
        in_points(figures.general) if figures.general else None,
        least=-settings.max_forgetting,
        unit="points",
        why=why or "it was not measured",
    )


def in_points(interval: Interval) -> Interval:
    """A difference of shares as percentage points."""
    return Interval(100 * interval.mean, 100 * interval.low, 100 * interval.high, interval.queries)


def _name(one: Slice) -> str:
    return f"{one.column} = {one.value}"


def _bound(
    name: str,
    told: str,
    found: Interval | float | None,
    *,
    least: float | None = None,
    most: float | None = None,
    unit: str = "figure",
    why: str = "the evaluation has no such figure",
    verb: str = " is",
) -> Iterator[Check]:
    """The check of one figure, none if it has no threshold. A number is a figure without an interval."""
    threshold = least if least is not None else most
    if threshold is None:
        return
    if found is None:
        yield Check(name, f"{name} was skipped: {why}", threshold, unit=unit)
        return
    interval, form = found if isinstance(found, Interval) else None, FORMS[unit]
    value = found.mean if isinstance(found, Interval) else found
    reached = value >= threshold - TINY if least is not None else value <= threshold + TINY
    crosses = interval is not None and interval.low < threshold - TINY and interval.high > threshold + TINY
    between = f" [{plain(form, interval.low)}, {plain(form, interval.high)}]" if interval else ""
    text = (
        f"{told}{verb} {form.format(value)}{between}, asked for at {'least' if least is not None else 'most'} "
        f"{form.format(threshold)}: {'passed' if reached else 'not passed'}"
    )
    if crosses:
        text += ", but the interval crosses the threshold, so that may be chance"
    yield Check(name, text, threshold, value, reached, interval, crosses, unit)


def plain(form: str, value: float) -> str:
    """A number without its unit."""
    return form.split(" ", maxsplit=1)[0].format(value)


def _judged(check: Check, settings: GateSettings) -> Check:
    """The check as strictly as the settings want it."""
    if check.passed is None and settings.strict:
        return replace(check, passed=False, text=f"{check.text}; evaluation.gate.strict = true lets no check be skipped")
    if check.passed and check.uncertain and settings.require_significance:
        return replace(
            check, passed=False, text=f"{check.text}; evaluation.gate.require_significance = true does not let it pass"
        )
    return check
