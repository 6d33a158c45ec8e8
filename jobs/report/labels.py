"""What a person calls a model."""

from __future__ import annotations

from jobs.record.record import MeasuredModel

LABELS = {"baseline": "off the shelf", "warm-up": "warm-up", "random": "random arm"}


def model_label(model: MeasuredModel) -> str:
    """What a person calls a model."""
    return LABELS.get(model.arm, f"round {model.round}")
