"""Is it worth training? From counts to a decision and its reason. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jobs.serving.refresh.changes import Changes

Action = Literal["nothing", "items", "train"]
LEAST_NEW_LABELS = 100
LEAST_NEW_SHARE = 0.02
"""Of all labels: fewer new ones have not been seen to change a model by more than its figures are uncertain."""


@dataclass(frozen=True)
class Decision:
    """What to do, and why."""

    action: Action
    reason: str


def first_decision(changes: Changes) -> Decision:
    """Before anything is trained: are there enough new labels?"""
    labels = labels_in_words(changes)
    fresh = changes.labels if changes.labels_new is None else changes.labels_new
    needed = max(LEAST_NEW_LABELS, round(LEAST_NEW_SHARE * changes.labels))
    if fresh >= needed:
        return Decision("train", f"{labels}; {needed:,} are worth a probe")
    short = f"{labels}, too few to train on (from {needed:,} on)"
    if changes.items:
        return Decision("items", f"{short}; {items_in_words(changes)}")
    return Decision("nothing", f"{short}, and the items are those that are served")


def after_probe(changes: Changes, verdict: str, reason: str) -> Decision:
    """After the probe: a round pays, or it does not."""
    if verdict != "no":
        return Decision("train", f"the probe says {verdict}: {reason}")
    return _keep(changes, f"mining has nothing left to teach this model, says the probe: {reason}")


def after_gate(changes: Changes, verdict: str) -> Decision:
    """After a round whose model the gate refused."""
    return _keep(changes, f"a round was trained, and the gate says no: {verdict.removeprefix('no: ')}")


def _keep(changes: Changes, reason: str) -> Decision:
    return Decision("items", f"{reason}; {items_in_words(changes)}") if changes.items else Decision("nothing", reason)


def labels_in_words(changes: Changes) -> str:
    """How many labels are new."""
    if changes.labels_new is None:
        return f"{changes.labels:,} labels, of which it is not known how many are new"
    return f"{changes.labels_new:,} of {changes.labels:,} labels are new"


def items_in_words(changes: Changes) -> str:
    """What changed among the items."""
    counts = {"new": changes.items_new, "changed": changes.items_changed, "gone": changes.items_gone}
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    return f"items: {told or 'other metadata'}"
