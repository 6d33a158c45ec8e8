"""telemetry.jsonl: one JSON line per micro-step with the loss and its geometry.

Lines are kept in memory and written as a whole object at the end of each epoch: an object store cannot append.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from cluster.storage import Store


class Telemetry:
    """The lines of one round; only the active rank keeps and writes them."""

    def __init__(self, store: Store, folder: str, *, active: bool) -> None:
        self._store, self._path, self._active = store, f"{folder}/telemetry.jsonl", active
        self._text: list[str] = []
        self._losses: list[float] = []

    @property
    def lines(self) -> int:
        """Lines so far."""
        return len(self._losses)

    def resume(self, lines: int) -> None:
        """Take over the first `lines` lines of an interrupted attempt."""
        text = self._store.read_bytes(self._path).decode().splitlines()[:lines] if lines else []
        self._text = text
        self._losses = [float(json.loads(line)["loss"]) for line in text]

    def add(self, figures: dict[str, Any]) -> None:
        """One micro-step."""
        # six digits that count: a learning rate of 1.3e-6 must not become 1e-6. The mean is over the same figures, so
        # that a resumed run, which reads them back, comes to the same one
        rounded = {name: float(f"{value:.6g}") if isinstance(value, float) else value
                   for name, value in figures.items()}
        self._losses.append(float(rounded["loss"]))
        if self._active:
            self._text.append(json.dumps(rounded))

    def flush(self) -> None:
        """Write all lines so far."""
        if self._active:
            self._store.write_bytes(self._path, ("\n".join(self._text) + "\n").encode())

    def mean_loss(self) -> float:
        """Mean loss of the last quarter of the steps: what the training loss came down to."""
        if not self._losses:
            return float("nan")
        return float(np.mean(self._losses[-max(1, len(self._losses) // 4):]))
