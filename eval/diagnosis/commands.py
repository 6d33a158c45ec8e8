"""The run again as one ready command: `hardmine run catalogue.toml name=… section.key=value …`.

What the run was told comes with the evidence. A change is made from that, so a command never proposes what is already set, nor
a value that a run would refuse. Where a setting is not known, the text says which way to turn it; where no file of the run is
known, it names the settings only. Another trainer has other names for them, so there the text is in plain words.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from eval.diagnosis.evidence import Evidence

LONGEST_NAME = 100
"""Characters of a run's name."""
MOST: Mapping[str, float] = {
    "training.hard_negatives": 1024,
    "training.random_fraction": 8,
    "training.lora.rank": 1024,
    "mining.num_negatives": 1024,
    "mining.num_hits": 65_536,
    "encoder.hidden": 65_536,
    "encoder.dimension": 8192,
    "encoder.max_length": 65_536,
    "rounds.mined": 100,
}
"""The largest value of each setting that is raised; a test holds them to the settings."""
MINE = (
    "hardmine init DATA encoder.kind=transformer encoder.model={checkpoint} && "
    "hardmine mine hardmine.toml {more}--export negatives --num 5"
)
"""Mining for another trainer (docs/plateau.md)."""


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
    if evidence.is_log:
        return _in_plain_words(changes)
    values = {key: value for key, value in changes.items() if isinstance(value, Turn) or not _is_set(evidence, key, value)}
    if changes and not values:
        return otherwise or f"{' and '.join(changes)} are set as would be proposed: look at the data and its labels"
    words = [f"{key}={_text(value)}" for key, value in values.items() if not isinstance(value, Turn)]
    turns = [f"{value.word} {key}" for key, value in values.items() if isinstance(value, Turn)]
    if not evidence.config:
        set_to = [f"set {' '.join(words)}"] if words else []
        return " and ".join([*turns, *set_to]) + ", under another name"
    name = f"{str(evidence.settings.get('name') or 'run')[: LONGEST_NAME - len(suffix) - 1]}-{suffix}"
    command = shlex.join(["hardmine", *evidence.verb, *evidence.config, f"name={name}", *words])
    return f"{' and '.join(turns)}, then: {command}" if turns else command


def _in_plain_words(changes: Mapping[str, Value]) -> str:
    """Changes for another trainer: "train with a learning rate of 1e-05", "lower the learning rate"."""
    names = {key: key.rpartition(".")[2].replace("_", " ") for key in changes}
    words = [f"a {names[key]} of {_text(value)}" for key, value in changes.items() if not isinstance(value, Turn)]
    turns = [f"{value.word} the {names[key]}" for key, value in changes.items() if isinstance(value, Turn)]
    return " and ".join([*turns, *([f"train with {' and '.join(words)}"] if words else [])])


def mine_with_checkpoint(evidence: Evidence, more: str = "") -> str:
    """New negatives from another trainer's model, which goes on where it is. Args: more: settings of the mining."""
    return MINE.format(checkpoint=shlex.quote(evidence.checkpoint), more=f"{more} " if more else "")


def setting(evidence: Evidence, key: str) -> float:
    """A number of the run's configuration; NaN where it is not known, or none."""
    value = evidence.settings.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def scaled(evidence: Evidence, key: str, factor: int) -> Value:
    """A whole number of the configuration, `factor` times as large; in words where it is not known."""
    value = setting(evidence, key)
    return Turn("raise") if math.isnan(value) else min(max(1, int(value)) * factor, int(MOST[key]))


def same_command(evidence: Evidence) -> str:
    """The run's own command, which resumes it."""
    words = ["hardmine", *evidence.verb, *evidence.config]
    return shlex.join(words) if evidence.config else "give the same command again"


def _is_set(evidence: Evidence, key: str, value: Value) -> bool:
    present = evidence.settings.get(key)
    if value == "off":  # absent where it is off, and where nothing is known of its section
        section = key.partition(".")[0] + "."
        return present == "off" or (present is None and any(other.startswith(section) for other in evidence.settings))
    return present is not None and _text(present) == _text(value)


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, int | float) and not float(value).is_integer() else _plain(value)


def _plain(value: Value) -> str:
    return f"{value:.0f}" if isinstance(value, float) else str(value)
