"""Mining's filters that leave too little: which setting makes the strictest one drop less."""

from __future__ import annotations

import math
from collections.abc import Callable

from eval.diagnosis.commands import Turn, Value, run_command, scaled, setting
from eval.diagnosis.evidence import Evidence


def command_for_filter(evidence: Evidence, name: str) -> str:
    """Loosen the filter that dropped most, as `Filtered.filters` names it: only what is set, and only towards dropping less."""
    more = _more_hits(evidence)
    if name.startswith("rule"):
        return f"loosen mining.rules: they leave too few candidates; or {more}"
    return run_command(evidence, "looser", changes, otherwise=more) if (changes := _loosened(evidence, name)) else more


def _loosened(evidence: Evidence, name: str) -> dict[str, Value]:
    """The changes that make a filter drop less; {}: no setting does."""

    def changed(key: str, change: Callable[[float], float], word: str) -> dict[str, Value]:
        value = setting(evidence, f"mining.{key}")
        known = any(other.startswith("mining.") for other in evidence.settings)
        if math.isnan(value):  # of a run that told its mining settings, the filter is off
            return {} if known else {f"mining.{key}": Turn(word)}
        return {f"mining.{key}": round(change(value), 4)}

    reference = evidence.settings.get("mining.margin_reference")
    milder: dict[str, Value] = {"mining.margin_reference": "mean"} if reference == "lowest" else {}
    if name == "relative_margin" and math.isfinite(setting(evidence, "mining.target_discard_rate")):
        return changed("target_discard_rate", lambda value: value / 2, "lower")
    table: dict[str, Callable[[], dict[str, Value]]] = {
        "relative_margin": lambda: changed("relative_margin", lambda value: value / 2, "lower") | milder,
        "absolute_margin": lambda: changed("absolute_margin", lambda value: value / 2, "lower") | milder,
        "min_score": lambda: changed("min_score", lambda value: max(-1.0, value - 0.1), "lower"),
        "max_score": lambda: changed("max_score", lambda value: min(1.0, value + 0.1), "raise"),
        "position": lambda: {
            key: int(value) if isinstance(value, float) else value
            for key, value in changed("skip_first", lambda value: value // 2, "lower").items()
        },
        "ceiling": lambda: changed("positive_quantile", lambda value: (value + 1) / 2, "raise"),
        "duplicate": lambda: changed("near_duplicate", lambda value: (value + 1) / 2, "raise"),
        "teacher": lambda: (
            changed("teacher.max_score", lambda value: value + abs(value), "raise")
            | changed("teacher.relative_margin", lambda value: value / 2, "lower")
        ),
    }
    return table[name]() if name in table else {}


def _more_hits(evidence: Evidence) -> str:
    hits = scaled(evidence, "mining.num_hits", 4)
    if evidence.items and setting(evidence, "mining.num_hits") >= evidence.items:
        return "add items: every item of the corpus is a candidate already"
    return run_command(evidence, "more-hits", {"mining.num_hits": hits})
