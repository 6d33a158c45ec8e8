"""Which columns may be a negative of which query, and of what kind.

B queries of one rank, C gathered columns.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cluster.labels.labels import Labels, contains
from cluster.tables.tables import I64
from training.feed.batches import Batch
from training.telemetry.gradient_geometry import CROSS_RANK, HARD, IN_BATCH, RANDOM


def candidate_masks(
    batch: Batch, columns_C: I64, labels: Labels, own_rows: I64 | None = None
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.uint8]]:
    """Which gathered columns may not be a negative of which query, and of what kind the others are.

    Args:
        own_rows: distinct items that this rank's queries brought; None: those of `batch`. Needed where `batch` is only a
            part of the rank's queries.

    Returns:
        (masked [B, C]: known positives, their group mates and duplicates; kind [B, C] uint8 of telemetry.gradient_geometry: HARD
        and RANDOM are a query's own, IN_BATCH is another query's of this rank, CROSS_RANK is of no query of this rank).
    """
    shape = (len(batch.query_rows), len(columns_C))
    masked = labels.known_mask(batch.query_rows, columns_C)
    wanted = np.broadcast_to(columns_C, shape)
    here_C = np.isin(columns_C, batch.item_rows if own_rows is None else own_rows)
    kind = np.broadcast_to(np.where(here_C, IN_BATCH, CROSS_RANK).astype(np.uint8), shape).copy()
    for rows, code in ((batch.random_BR, RANDOM), (batch.hard_BH, HARD)):
        owner = np.repeat(np.arange(shape[0]), rows.shape[1])
        flat = rows.ravel()
        kind[contains(owner[flat >= 0], flat[flat >= 0], wanted)] = code
    return masked, kind
