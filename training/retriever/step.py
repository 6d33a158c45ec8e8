"""One training step: encode, lose, give the weights their gradient, and look at the geometry.

B local queries, U items that this rank encodes, D dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from training.engine.engine import Place
from training.feed.feed import Prepared
from training.objective.gather import mean_over_ranks
from training.objective.objective import Objective
from training.rank.forward import NotFiniteError, Pass
from training.telemetry.gradient_geometry import SPACE, alignment_uniformity, geometry_figures


@dataclass(frozen=True)
class StepFigures:
    """What one micro-step shows, over all ranks."""

    figures: dict[str, float]
    log_temperature: float
    """Gradient with respect to log τ."""
    geometry_seconds: float


def train_step(
    engine: Any, objective: Objective, step: Prepared, place: Place, *, temperature: float, cached: bool, boundary: bool
) -> StepFigures:
    """Add the gradient of one micro-step to the weights' (the optimizer's step is the caller's). Collective.

    Raises:
        NotFiniteError: the loss is NaN or infinite on some rank; every rank raises, before the optimizer steps.
    """
    passes = Pass(engine, step.packs, place, cached=cached)
    embeddings = passes.forward()
    queries, items = embeddings[: len(step.batch.query_rows)], embeddings[len(step.batch.query_rows) :]
    outcome = objective(queries, items, step, temperature)
    # one small all-reduce: means over ranks, each of which saw about as many queries; sums of the geometry keep their ratios
    single = torch.stack([outcome.loss.double(), outcome.log_temperature.double(), outcome.left_out.double()])
    means = mean_over_ranks(torch.cat([single, alignment_uniformity(queries, outcome.positives_BD), outcome.sums]))
    passes.backward(torch.cat([outcome.gradient_BD, outcome.gradient_UD]), boundary=boundary)
    # only now does the host wait for a device, once
    loss, log_temperature, left_out, *rest = means.tolist()
    if not math.isfinite(loss):
        raise NotFiniteError(str(loss))
    figures = {"loss": loss} | geometry_figures(torch.tensor(rest[len(SPACE) :]), temperature)
    figures |= dict(zip(SPACE, rest, strict=False))
    figures["left_out_per_query"] = left_out * place.world / len(step.joined_queries)
    return StepFigures(figures, log_temperature, outcome.geometry_seconds)
