"""The next experiment for each finding, as one ready command (`eval.diagnosis.commands`)."""

from __future__ import annotations

import math
import re
import shlex

from eval.diagnosis.commands import MOST, Turn, Value, mine_with_checkpoint, run_command, same_command, scaled, setting
from eval.diagnosis.evidence import Evidence, Training

USUAL_TEMPERATURE = 0.05
WEIGHT_DECAY = 0.1
"""Against pairs that are learned by heart."""
LEAST_BATCH = 8
"""No smaller batch is proposed: its in-batch negatives would be too few."""


def harder_negatives(evidence: Evidence, arm: str) -> str:
    """Negatives that still pull: mined ones where there are none yet, nearer ones or more of them where there are."""
    if evidence.is_log:
        return f"mine new negatives with your checkpoint: {mine_with_checkpoint(evidence)}"
    changes: dict[str, Value] = {}
    if setting(evidence, "training.temperature") > 1.1 * USUAL_TEMPERATURE:
        changes["training.temperature"] = USUAL_TEMPERATURE
    rounds = setting(evidence, "rounds.mined")
    if arm == "random" and not rounds > 0:
        return run_command(evidence, "mined", {"rounds.mined": 2 if rounds == 0 else Turn("raise"), **changes})
    if arm == "random":  # a warm-up: its mined rounds are the cure
        return "let the run go on: its mined rounds have harder ones"
    changes["training.hard_negatives"] = hard = scaled(evidence, "training.hard_negatives", 2)
    if isinstance(hard, int) and setting(evidence, "mining.num_negatives") < hard:
        changes["mining.num_negatives"] = hard
        if setting(evidence, "mining.num_hits") < 2 * hard:
            changes["mining.num_hits"] = 4 * hard
    if setting(evidence, "mining.skip_first") > 0:
        changes["mining.skip_first"] = 0
    return run_command(evidence, "harder", changes)


def fewer_false_negatives(evidence: Evidence, *, starved: bool) -> str:
    """A stricter cut below the positive, in mining and in the loss.

    Args:
        starved: the margin leaves hardly a candidate already; then a ceiling from all positives' scores, not from each query's.
    """
    if evidence.is_log:
        stricter = "mining.relative_margin=0.1 mining.margin_reference=lowest"
        return f"mine again with your checkpoint and a stricter margin: {mine_with_checkpoint(evidence, stricter)}"
    otherwise = "label more of the relevant items"
    if not any(name.startswith("mining.teacher.") for name in evidence.settings):
        otherwise += ", or let a teacher score the candidates ([mining.teacher])"
    rate = setting(evidence, "mining.target_discard_rate")
    if math.isfinite(rate):  # it takes the place of the margin
        changes: dict[str, Value] = {
            "mining.target_discard_rate": round(min(0.9, 2 * rate), 3),
            "training.false_negative_margin": 0.0,
        }
        return run_command(evidence, "fewer-false", changes, otherwise=otherwise)
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


def stop_earlier(training: Training, best: int, rate: float) -> str:
    """Of another trainer's log that over-fits: where to stop, as its own lines say it.

    Args:
        best: number of the best validation. rate: as of `slower`.
    """
    places = training.validation_places
    third = f", {rate / 3:.2g}" if math.isfinite(rate) else ""
    return (
        f"stop at {places[best]} (the last validation is at {places[-1]}), or train again with a third of the learning "
        f"rate{third}, and a weight decay of {WEIGHT_DECAY:g}"
    )


def more_capacity(evidence: Evidence) -> str:
    """A wider model, or more of the text; how depends on the encoder."""
    if evidence.is_log:
        return "choose a larger model, or give it more of the text"
    kind = evidence.settings.get("encoder.kind")
    if kind in ("adapter", "sequence"):
        return run_command(evidence, "wider", {"encoder.hidden": scaled(evidence, "encoder.hidden", 2)})
    if kind == "static":
        return run_command(evidence, "wider", {"encoder.dimension": scaled(evidence, "encoder.dimension", 2)})
    if setting(evidence, "training.lora.rank") > 0:
        return run_command(evidence, "wider", {"training.lora.rank": scaled(evidence, "training.lora.rank", 4)})
    length, positions = setting(evidence, "encoder.max_length"), setting(evidence, "model positions")
    if length > 0 and not 2 * length > positions:
        return run_command(evidence, "longer", {"encoder.max_length": scaled(evidence, "encoder.max_length", 2)})
    return run_command(evidence, "larger", {"encoder.model": Turn("choose a larger")})


def another_round(evidence: Evidence) -> str:
    """One more mined round of the same run, which keeps all that is committed."""
    rounds = setting(evidence, "rounds.mined")
    if math.isnan(rounds) or not evidence.config or rounds >= MOST["rounds.mined"]:
        return "mine another round"
    return shlex.join(["hardmine", *evidence.verb, *evidence.config, f"rounds.mined={rounds + 1:.0f}"])


def other_settings(evidence: Evidence) -> str:
    """What is left where nothing is wrong and nothing is gained."""
    if not evidence.config or not setting(evidence, "rounds.mined") > 0:
        return "try another model, or label more queries"
    return shlex.join(["hardmine", "sweep", *evidence.config])


def more_steps(evidence: Evidence, steps: int, needed: int, *, epochs_done: int) -> str:
    """What gives a training that had `steps` steps the `needed` ones: more epochs, or, if it stopped early, smaller batches.

    Args:
        epochs_done: that were validated; fewer than were planned where validation ended the training.
    """
    epochs, most = setting(evidence, "training.epochs"), setting(evidence, "training.max_steps")
    if math.isnan(epochs) or not steps:
        return "train for longer: raise training.epochs, or lower training.batch_size"
    batch, changes = setting(evidence, "training.batch_size"), dict[str, Value]()
    if 0 < epochs_done < epochs and batch >= 2 * LEAST_BATCH:  # more epochs would be stopped as well
        changes["training.batch_size"] = max(LEAST_BATCH, int(batch * steps / needed))
    elif 0 < epochs_done < epochs:
        changes["training.patience"] = int(epochs)
    else:
        changes["training.epochs"] = min(1000, math.ceil(epochs * needed / steps))
    if most < needed:
        changes["training.max_steps"] = needed
    return run_command(evidence, "longer", changes)


def more_dev(evidence: Evidence, queries: int, needed: int) -> str:
    """A larger dev split, where it is cut from the training queries; else more labels."""
    if not queries:
        return same_command(evidence)
    wanted = math.ceil(130 * needed / max(1, queries + evidence.training_queries)) / 100  # drawn by id: somewhat more
    if evidence.dev_is_cut and setting(evidence, "data.dev_fraction") < wanted < 0.5:
        return run_command(evidence, "more-dev", {"data.dev_fraction": wanted})
    return f"label more dev queries, at least {needed} in all, or give training queries the split dev"


def without_field(evidence: Evidence, column: str) -> dict[str, Value]:
    """The text templates without a column, with the words before it; {}: none has it, or would have nothing left."""
    changes: dict[str, Value] = {}
    for key in ("data.item_text", "data.query_text"):
        template = str(evidence.settings.get(key, ""))
        rest = re.sub(r"[^{}]*\{" + re.escape(column) + r"\}", "", template, count=1)
        if rest != template and "{" in rest:
            changes[key] = rest.lstrip(" |,;:–-")
    return changes
