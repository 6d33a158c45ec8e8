"""What a person sets about `hardmine sweep`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class SweepSettings(BaseModel):
    """Trials of the first mined round: temperature × random_fraction for InfoNCE, margin × random_fraction for triplet."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    temperature: list[Annotated[float, Field(ge=0.001, le=1.0)]] = [0.02, 0.05, 0.1]
    """training.temperature of the InfoNCE trials; a triplet loss has none."""
    random_fraction: Annotated[list[Annotated[float, Field(ge=0.0, le=8.0)]], Field(min_length=1)] = [0.0, 0.25, 1.0]
    """training.random_fraction of the trials."""
    loss: Annotated[list[Literal["info_nce", "triplet"]], Field(min_length=1)] = ["info_nce", "triplet"]
    """training.loss of the trials."""
    margin: list[Annotated[float, Field(ge=0.0, le=2.0)]] = [0.2]
    """training.margin of the triplet trials."""
    epochs: Annotated[int, Field(ge=1, le=1000)] = 3
    """Most epochs of a trial; bad ones are stopped earlier."""
    max_trials: Annotated[int, Field(ge=2, le=10_000)] = 24
    """Most trials; of more combinations as many are drawn by rounds.seed, the configuration as it is always among them."""
    reduction_factor: Annotated[float, Field(gt=1.0, le=8.0)] = 2.0
    """About one of so many trials goes on at epochs 1, f, f² … (ASHA, Li 2020, arXiv 1810.05934); 2: the better half."""

    @model_validator(mode="after")
    def _lists_are_there(self) -> SweepSettings:
        for loss, name in (("info_nce", "temperature"), ("triplet", "margin")):
            if loss in self.loss and not getattr(self, name):
                raise ValueError(f'sweep.loss holds "{loss}", but sweep.{name} is empty; give it a value, or take the loss out')
        return self
