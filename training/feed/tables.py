"""What training reads, in memory on every rank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cluster.labels.labels import Labels
from training.encoders.tokens.features import Features


@dataclass(frozen=True)
class Guide:
    """A second encoder's unit vectors of all queries [Q, G] and items [N, G]; half precision, they only order."""

    queries: npt.NDArray[np.float16]
    items: npt.NDArray[np.float16]


@dataclass(frozen=True)
class Tables:
    """Features, labels and, where there is one, the guide."""

    queries: Features
    items: Features
    labels: Labels
    guide: Guide | None = None
