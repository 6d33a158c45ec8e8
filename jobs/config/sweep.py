"""What a person sets about `hardmine sweep`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class SweepSettings(BaseModel):
    """Trials of the first mined round: every combination of loss, temperature (InfoNCE) and random_fraction. The configuration
    as it is is always one of them; triplet trials have its training.margin."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    temperature: list[Annotated[float, Field(ge=0.001, le=1.0)]] = [0.02, 0.05, 0.1]
    """Values of training.temperature for the InfoNCE trials."""
    random_fraction: Annotated[list[Annotated[float, Field(ge=0.0, le=8.0)]], Field(min_length=1)] = [0.0, 0.25, 1.0]
    """Values of training.random_fraction."""
    loss: Annotated[list[Literal["info_nce", "triplet"]], Field(min_length=1)] = ["info_nce", "triplet"]
    """Values of training.loss."""
    epochs: Annotated[int, Field(ge=1, le=1000)] = 3
    """Maximum epochs of a trial. Bad trials are stopped earlier: after epochs 1, 2, 4 … about half of them continue."""

    @model_validator(mode="after")
    def _temperatures_are_there(self) -> SweepSettings:
        if "info_nce" in self.loss and not self.temperature:
            raise ValueError(
                'sweep.loss contains "info_nce", but sweep.temperature is empty; give it a value, or remove that loss'
            )
        return self
