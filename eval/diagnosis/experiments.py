"""The next experiment as one ready command: `hardmine run run.toml name=… section.key=value …`.

What the run was told comes with the evidence. A change is made from that, so a command never proposes what is already set;
where a setting is not known, the text says which way to turn it.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from eval.diagnosis.evidence import Evidence

USUAL_TEMPERATURE = 0.05
WEIGHT_DECAY = 0.1
"""Against pairs that are learned by heart."""


@dataclass(frozen=True)
class Turn:
    """A change of a setting whose present value is not known: in words."""

    word: str
    """ "raise", "lower" …"""


Value = float | int | str | bool | Turn


def run_command(evidence: Evidence, suffix: str, changes: Mapping[str, Value], *, otherwise: str = "") -> str:
    """The run again under another name, with changes; what is set like that already is left out.

    Args:
        suffix: what the name gets; a run under its own name would go on instead of starting anew.
        changes: key of the configuration -> its new value; none: the same run on other data.
        otherwise: what to do where nothing is left to change, in words.
    """
    values = {key: value for key, value in changes.items() if isinstance(value, Turn) or not _is_set(evidence, key, value)}
    if changes and not values:
        return otherwise or f"{' and '.join(changes)} are set as would be proposed: look at the data and its labels"
    name = evidence.settings.get("name") or PurePosixPath(evidence.config_path).stem
    words = [f"{key}={_text(value)}" for key, value in values.items() if not isinstance(value, Turn)]
    command = shlex.join(["hardmine", "run", evidence.config_path, f"name={name}-{suffix}", *words])
    turns = [f"{value.word} {key}" for key, value in values.items() if isinstance(value, Turn)]
    return f"{' and '.join(turns)}, then: {command}" if turns else command


def setting(evidence: Evidence, key: str) -> float:
    """A number of the run's configuration; NaN where it is not known, or none."""
    value = evidence.settings.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def scaled(evidence: Evidence, key: str, factor: int) -> Value:
    """A whole number of the configuration, `factor` times as large; in words where it is not known."""
    value = setting(evidence, key)
    return Turn("raise") if math.isnan(value) else max(1, int(value)) * factor


def harder_negatives(evidence: Evidence, arm: str) -> str:
    """Negatives that still pull: mined ones where there are none yet, nearer ones or more of them where there are."""
    changes: dict[str, Value] = {}
    if setting(evidence, "training.temperature") > 1.1 * USUAL_TEMPERATURE:
        changes["training.temperature"] = USUAL_TEMPERATURE
    rounds = setting(evidence, "rounds.mined")
    if arm == "random" and not rounds > 0:
        return run_command(evidence, "mined", {"rounds.mined": 2 if rounds == 0 else Turn("raise"), **changes})
    if arm == "random":  # the control did what controls do: the mined rounds are the cure, so more of them
        return run_command(evidence, "more-rounds", {"rounds.mined": int(rounds) + 2, **changes})
    changes["training.hard_negatives"] = hard = scaled(evidence, "training.hard_negatives", 2)
    if isinstance(hard, int) and setting(evidence, "mining.num_negatives") < hard:
        changes["mining.num_negatives"] = hard
    if setting(evidence, "mining.skip_first") > 0:
        changes["mining.skip_first"] = 0
    return run_command(evidence, "harder", changes)


def fewer_false_negatives(evidence: Evidence, *, starved: bool) -> str:
    """A stricter cut below the positive, in mining and in the loss.

    Args:
        starved: the margin leaves hardly a candidate already; then a ceiling from all positives' scores, not from each query's.
    """
    otherwise = "label more of the relevant items, or let a teacher score the candidates ([mining.teacher])"
    if starved:
        return run_command(
            evidence,
            "ceiling",
            {"mining.relative_margin": "off", "mining.positive_quantile": 0.5, "training.false_negative_margin": 0.0},
            otherwise=otherwise,
        )
    return run_command(
        evidence,
        "fewer-false",
        {
            "mining.relative_margin": _twice_the_margin(evidence),
            "mining.margin_reference": "lowest",
            "training.false_negative_margin": 0.0,
        },
        otherwise=otherwise,
    )


def _twice_the_margin(evidence: Evidence) -> Value:
    margin = setting(evidence, "mining.relative_margin")
    if math.isfinite(margin):
        return round(min(0.5, max(0.05, 2 * margin)), 3)
    # a run that told its mining settings and has no margin among them has it off
    return 0.05 if any(key.startswith("mining.") for key in evidence.settings) else Turn("raise")


def usual_temperature(evidence: Evidence) -> str:
    """τ as it usually is; one that was learned away from it is no longer learned."""
    changes: dict[str, Value] = {"training.temperature": USUAL_TEMPERATURE}
    if evidence.settings.get("training.learn_temperature") is True:
        changes["training.learn_temperature"] = False
    return run_command(evidence, "tau-0.05", changes)


def slower(evidence: Evidence, suffix: str, rate: float, factor: float) -> str:
    """A learning rate `factor` times lower, and clipped gradients.

    Args:
        rate: the highest of the training; NaN: not known.
    """
    changes: dict[str, Value] = {"training.learning_rate": rate / factor if math.isfinite(rate) else Turn("lower")}
    if setting(evidence, "training.gradient_clipping") == 0:
        changes["training.gradient_clipping"] = 1.0
    return run_command(evidence, suffix, changes)


def shorter(evidence: Evidence, rate: float, *, epochs: int) -> str:
    """Fewer epochs and some weight decay; where there is but one epoch, a lower learning rate.

    Args:
        rate: as of `slower`.
        epochs: after which it was best.
    """
    changes: dict[str, Value] = {}
    if not setting(evidence, "training.weight_decay") >= WEIGHT_DECAY:
        changes["training.weight_decay"] = WEIGHT_DECAY
    if setting(evidence, "training.epochs") <= epochs:
        changes["training.learning_rate"] = rate / 3 if math.isfinite(rate) else Turn("lower")
        return run_command(evidence, "gentler", changes)
    return run_command(evidence, "shorter", {"training.epochs": epochs, **changes})


def more_capacity(evidence: Evidence) -> str:
    """A wider model, or more of the text; how depends on the encoder."""
    kind = evidence.settings.get("encoder.kind")
    if kind in ("adapter", "sequence"):
        return run_command(evidence, "wider", {"encoder.hidden": scaled(evidence, "encoder.hidden", 2)})
    if kind == "static":
        return run_command(evidence, "wider", {"encoder.dimension": scaled(evidence, "encoder.dimension", 2)})
    if setting(evidence, "training.lora.rank") > 0:
        return run_command(evidence, "wider", {"training.lora.rank": scaled(evidence, "training.lora.rank", 4)})
    if setting(evidence, "encoder.max_length") > 0:
        return run_command(evidence, "longer", {"encoder.max_length": scaled(evidence, "encoder.max_length", 2)})
    return run_command(evidence, "larger", {"encoder.model": Turn("choose a larger")})


def command_for_filter(evidence: Evidence, name: str) -> str:
    """Loosen the filter that dropped most."""

    def moved(key: str, by: float, least: float = -1.0, most: float = 1.0) -> Value:
        value = setting(evidence, f"mining.{key}")
        return Turn("raise" if by > 0 else "lower") if math.isnan(value) else round(min(most, max(least, value + by)), 3)

    def halved(key: str) -> Value:
        value = setting(evidence, f"mining.{key}")
        return Turn("lower") if math.isnan(value) else value / 2

    skip = setting(evidence, "mining.skip_first")
    loosened: dict[str, dict[str, Value]] = {
        "relative_margin": {"mining.relative_margin": halved("relative_margin"), "mining.margin_reference": "mean"},
        "absolute_margin": {"mining.absolute_margin": halved("absolute_margin")},
        "min_score": {"mining.min_score": moved("min_score", -0.1)},
        "max_score": {"mining.max_score": moved("max_score", 0.1)},
        "position": {"mining.skip_first": Turn("lower") if math.isnan(skip) else int(skip) // 2},
        "ceiling": {"mining.positive_quantile": moved("positive_quantile", 0.25, most=0.95)},
    }
    if name == "rule":
        return "loosen mining.rules: they leave too few candidates; or " + _more_hits(evidence)
    if name.startswith("teacher"):
        return "raise mining.teacher.max_score or lower mining.teacher.relative_margin; or " + _more_hits(evidence)
    if name not in loosened:
        return _more_hits(evidence)
    return run_command(evidence, "looser", loosened[name], otherwise=_more_hits(evidence))


def _more_hits(evidence: Evidence) -> str:
    return run_command(evidence, "more-hits", {"mining.num_hits": scaled(evidence, "mining.num_hits", 4)})


def _is_set(evidence: Evidence, key: str, value: Value) -> bool:
    present = evidence.settings.get(key)
    if value == "off":  # absent where it is off, and where nothing is known of its section
        section = key.partition(".")[0] + "."
        return present is None and any(other.startswith(section) for other in evidence.settings)
    return present is not None and _text(present) == _text(value)


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, int | float) and not float(value).is_integer() else _plain(value)


def _plain(value: Value) -> str:
    return f"{value:.0f}" if isinstance(value, float) else str(value)
