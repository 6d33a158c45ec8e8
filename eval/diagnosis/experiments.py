"""The next experiment as one ready command: `hardmine run run.toml name=… section.key=value …`."""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath

from eval.diagnosis.evidence import Evidence

Value = float | int | str | bool


def run_command(evidence: Evidence, suffix: str, **changes: Value) -> str:
    """The run again under another name, with changes.

    Args:
        suffix: what the name gets; a run under its own name would go on instead of starting anew.
        changes: settings, with two underscores for the dot: training__temperature=0.05.
    """
    name = evidence.settings.get("name") or PurePosixPath(evidence.config_path).stem
    words = [f"{key.replace('__', '.')}={_text(value)}" for key, value in changes.items()]
    return shlex.join(["hardmine", "run", evidence.config_path, f"name={name}-{suffix}", *words])


def setting(evidence: Evidence, key: str, default: float) -> float:
    """A number of the run's configuration, else `default`."""
    value = evidence.settings.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else default


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def harder_negatives(evidence: Evidence, arm: str) -> str:
    """Negatives that still pull: mined ones where there are none yet, nearer ones or more of them where there are."""
    sharper: dict[str, Value] = {"training__temperature": 0.05} if setting(evidence, "training.temperature", 0.05) > 0.055 else {}
    mined = int(setting(evidence, "rounds.mined", 0))
    if arm == "random" and mined:  # the control did what controls do: the mined rounds are the cure, so more of them
        return run_command(evidence, "more-rounds", rounds__mined=mined + 2, **sharper)
    if arm == "random":
        return run_command(evidence, "mined", rounds__mined=2, **sharper)
    hard = int(setting(evidence, "training.hard_negatives", 7))
    kept = int(setting(evidence, "mining.num_negatives", 32))
    changes: dict[str, Value] = {"training__hard_negatives": 2 * hard, "training__random_fraction": 0.25}
    if kept < 2 * hard:
        changes["mining__num_negatives"] = 2 * hard
    if setting(evidence, "mining.skip_first", 0):
        changes["mining__skip_first"] = 0
    return run_command(evidence, "harder", **changes, **sharper)


def fewer_false_negatives(evidence: Evidence, *, starved: bool) -> str:
    """A stricter cut below the positive, in mining and in the loss.

    Args:
        starved: the margin leaves hardly a candidate already; then a ceiling from all positives' scores, not from each query's.
    """
    if starved:
        return run_command(
            evidence, "ceiling", mining__relative_margin="off", mining__positive_quantile=0.5, training__false_negative_margin=0.0
        )
    margin = setting(evidence, "mining.relative_margin", 0.0)  # absent where the cut is off
    return run_command(
        evidence,
        "fewer-false",
        mining__relative_margin=round(min(0.5, max(0.05, 2 * margin)), 3),
        mining__margin_reference="lowest",
        training__false_negative_margin=0.0,
    )


def more_capacity(evidence: Evidence) -> str:
    """A wider model, or more of the text; how depends on the encoder."""
    kind = evidence.settings.get("encoder.kind")
    if kind in ("adapter", "sequence"):
        return run_command(evidence, "wider", encoder__hidden=2 * int(setting(evidence, "encoder.hidden", 512)))
    if kind == "static":
        return run_command(evidence, "wider", encoder__dimension=2 * int(setting(evidence, "encoder.dimension", 256)))
    rank = setting(evidence, "training.lora.rank", 0)
    if rank:
        return run_command(evidence, "wider", training__lora__rank=4 * int(rank))
    length = setting(evidence, "encoder.max_length", 0)
    if length:
        return run_command(evidence, "longer", encoder__max_length=2 * int(length))
    return run_command(evidence, "larger", encoder__model="a-larger-model")


def command_for_filter(evidence: Evidence, name: str) -> str:
    """Loosen the filter that dropped most."""
    margin = setting(evidence, "mining.relative_margin", 0.05)
    loosened: dict[str, dict[str, Value]] = {
        "relative_margin": {"mining__relative_margin": margin / 2, "mining__margin_reference": "mean"},
        "absolute_margin": {"mining__absolute_margin": setting(evidence, "mining.absolute_margin", 0.1) / 2},
        "min_score": {"mining__min_score": setting(evidence, "mining.min_score", 0.0) - 0.1},
        "max_score": {"mining__max_score": min(1.0, setting(evidence, "mining.max_score", 0.9) + 0.1)},
        "position": {"mining__skip_first": int(setting(evidence, "mining.skip_first", 0)) // 2},
        "ceiling": {"mining__positive_quantile": min(0.95, setting(evidence, "mining.positive_quantile", 0.5) + 0.25)},
    }
    if name == "rule":
        return "loosen mining.rules: they leave too few candidates; or " + _more_hits(evidence)
    if name.startswith("teacher"):
        return "raise mining.teacher.max_score or lower mining.teacher.relative_margin; or " + _more_hits(evidence)
    return run_command(evidence, "looser", **loosened[name]) if name in loosened else _more_hits(evidence)


def _more_hits(evidence: Evidence) -> str:
    return run_command(evidence, "more-hits", mining__num_hits=4 * int(setting(evidence, "mining.num_hits", 100)))
