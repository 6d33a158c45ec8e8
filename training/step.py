"""One training step: encode, gather, mask, lose, and look at the geometry.

B local queries, U local items, C gathered columns, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cluster.labels import Labels
from training.batches import Batch, candidate_masks
from training.engine import Place
from training.features import Features
from training.forward import encode_rows
from training.gather import first_column, first_occurrence, gather_rows, mean_over_ranks
from training.geometry import alignment_uniformity, loss_geometry
from training.losses import info_nce
from training.settings import TrainingSettings


@dataclass(frozen=True)
class Tables:
    """What a step reads, in memory on every rank."""

    queries: Features
    items: Features
    labels: Labels


def step_loss(
    engine: Any, batch: Batch, tables: Tables, settings: TrainingSettings, place: Place, *,
    budget_tokens: int | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """The loss of this rank's queries against the items of all ranks, with gradient, and its geometry.

    The items are gathered with their gradient, the cross-entropy is over local rows only, and its mean over local rows
    becomes the mean over all rows when DeepSpeed averages gradients over ranks: the cheapest form that is exact.
    """
    queries_BD = encode_rows(engine, tables.queries, batch.query_rows, place, budget_tokens=budget_tokens)
    items_UD = encode_rows(engine, tables.items, batch.item_rows, place, budget_tokens=budget_tokens)
    rows_U = torch.from_numpy(batch.item_rows).to(place.device)
    shared = settings.gather and place.world > 1
    items_CD, rows_C = (gather_rows(items_UD), gather_rows(rows_U)) if shared else (items_UD, rows_U)
    keep_C, _ = first_occurrence(rows_C)  # an item that two ranks brought counts once, as it would in one process
    items_CD, rows_C = items_CD[keep_C], rows_C[keep_C]
    positive_B = first_column(torch.from_numpy(batch.positive_rows).to(place.device), rows_C)
    masked, kind = candidate_masks(batch, rows_C.cpu().numpy(), tables.labels)
    weights_B = torch.from_numpy(batch.weights).to(place.device)
    outcome = info_nce(
        queries_BD, items_CD, positive_B, temperature=settings.temperature,
        masked_BC=torch.from_numpy(masked).to(place.device), weights_B=weights_B,
        denominator=mean_over_ranks(weights_B.sum()),  # ranks whose weights differ still make one mean
    )
    figures = loss_geometry(outcome.logits_BC, positive_B, torch.from_numpy(kind).to(place.device))
    figures |= alignment_uniformity(queries_BD.detach(), items_CD.detach()[positive_B])
    return outcome.loss, figures
