"""What a person sets about `hardmine probe`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class ProbeSettings(BaseModel):
    """A cheap trial before the real run: mined against random negatives on a share of the training queries, judged by
    `evaluation.primary`."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    """Share of the training queries that are used (of those that data.train_fraction leaves). All dev queries are used, and each
    arm passes once over the training queries."""
    min_lead: Annotated[float, Field(gt=0.0, le=100.0)] = 0.5
    """Minimum lead of mined over random negatives in the primary figure, in percentage points, for the answer yes."""
