"""How the model's cosines are spread: of relevant items, of the nearest that are not relevant, of random ones.

Training should part positives from hard negatives; if all three lie together the model has collapsed, and if hard ones
lie with random ones there was nothing hard to find.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

EDGES = np.round(np.linspace(-1.0, 1.0, 41), 2)
"""[41] ends of 40 bins; the same for every model, so that before and after lie over each other."""
PERCENTILES = (5, 25, 50, 75, 95)


def score_figures(scores: Mapping[str, npt.NDArray[np.floating[Any]]]) -> dict[str, Any]:
    """Histogram and percentiles of each kind of pair.

    Args:
        scores: cosines [any length] for each kind, "positive", "hard", "random"; what is not finite is left out, and what
            rounding puts outside -1 … 1 counts in the last bin.

    Returns:
        {"edges": [41], KIND: [40] counts, "percentiles": {KIND: {"p5", "p25", "p50", "p75", "p95"}}}, plain numbers; a kind
        without a score has no percentiles.
    """
    real = {kind: values[np.isfinite(values)].astype(np.float64) for kind, values in scores.items()}
    counts = {kind: np.histogram(np.clip(values, -1, 1), EDGES)[0].tolist() for kind, values in real.items()}
    spread = {kind: dict(zip((f"p{p}" for p in PERCENTILES), np.percentile(values, PERCENTILES).tolist(), strict=True))
              for kind, values in real.items() if len(values)}  # fmt: skip
    return {"edges": EDGES.tolist(), **counts, "percentiles": spread}
