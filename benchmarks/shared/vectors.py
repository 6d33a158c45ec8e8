"""Generated unit vectors whose neighbourhoods are like those of real text embeddings: a common mean, topics within topics.

Calibrated on 57,000 MiniLM vectors of Debian package descriptions: the scores at positions 1, 10, 100 and 1,000 of a query
are alike (see `python -m benchmarks.shared.vectors`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
LEVELS = (24, 24, 24)
"""Children of every topic, level by level."""
WEIGHTS = (0.38, 0.42, 0.39, 0.40)
"""Share of the common mean and of the topics of each level; the rest is the item's own."""
CHUNK = 65_536


class Topics:
    """A tree of topics; items and queries are drawn from its leaves."""

    def __init__(self, dimension: int = 384, seed: int = 0) -> None:
        rng = np.random.default_rng([seed, 1])
        self.dimension = dimension
        self._mean = _unit(rng, 1, dimension)
        self._levels = [_unit(rng, int(np.prod(LEVELS[: level + 1])), dimension) for level in range(len(LEVELS))]

    def draw(self, count: int, seed: int) -> F32:
        """Unit vectors [count, D], float32; equal for equal (count, seed)."""
        result = np.empty((count, self.dimension), np.float32)
        own = float(np.sqrt(1.0 - sum(weight**2 for weight in WEIGHTS)))
        for start in range(0, count, CHUNK):
            rng = np.random.default_rng([seed, start, 2])
            size = min(CHUNK, count - start)
            # popular topics hold more items than others
            leaf = (len(self._levels[-1]) * rng.random(size) ** 2).astype(np.int64)
            some = own * _unit(rng, size, self.dimension) + np.float32(WEIGHTS[0]) * self._mean
            for level, centres in enumerate(self._levels):
                some += np.float32(WEIGHTS[level + 1]) * centres[leaf // int(np.prod(LEVELS[level + 1 :]))]
            result[start : start + size] = some / np.linalg.norm(some, axis=1, keepdims=True)
        return result


def _unit(rng: np.random.Generator, count: int, dimension: int) -> F32:
    vectors = rng.standard_normal((count, dimension), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def profile(queries_QD: F32, items_ND: F32) -> dict[int, float]:
    """Median score at a few positions."""
    scores = -np.sort(-(queries_QD @ items_ND.T), axis=1)
    return {place: round(float(np.median(scores[:, place - 1])), 3) for place in (1, 10, 100, 1000) if place <= len(items_ND)}


if __name__ == "__main__":
    topics = Topics()
    print(profile(topics.draw(300, 1), topics.draw(57_000, 2)))
