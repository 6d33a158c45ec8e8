"""Which queries, positives and negatives make up each step: a pure function of (seed, epoch, step).

The batch of all ranks together is drawn at once and then cut by rank, so that W ranks with B queries see exactly what
one rank with W·B queries would. Nothing is kept between steps: a resumed run draws what it would have drawn.

B queries of one rank, H hard negatives, R random negatives, U distinct items, C gathered columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cluster.errors import ConfigError
from cluster.labels import Labels, contains
from cluster.tables import I64
from training.geometry import HARD, IN_BATCH, RANDOM

LONGEST_LIST = np.int64(2**20)
"""More than any query has mined negatives."""


@dataclass(frozen=True)
class Examples:
    """The training queries with what is known of each."""

    query_rows: I64
    """[E]"""
    positive_offsets: I64
    positive_rows: I64
    negative_offsets: I64
    """[E+1] into negative_rows; all zero before anything is mined."""
    negative_rows: I64
    weights: npt.NDArray[np.float32]
    """[E] weight of each query's loss."""

    def __len__(self) -> int:
        return len(self.query_rows)


@dataclass(frozen=True)
class Batch:
    """One micro-step of one rank."""

    query_rows: I64
    positive_rows: I64
    hard_BH: I64  # noqa: N815
    """Mined negatives, -1 where a query has fewer."""
    random_BR: I64  # noqa: N815
    item_rows: I64
    """[U] the distinct items, ascending: each is encoded once however many queries use it."""
    weights: npt.NDArray[np.float32]


@dataclass(frozen=True)
class BatchPlan:
    """How examples become steps."""

    examples: Examples
    num_items: int
    batch_size: int
    """Queries per rank."""
    hard: int
    random: int
    seed: int
    rank: int
    world: int

    def __post_init__(self) -> None:
        if self.micro_steps < 1:
            raise ConfigError(
                f"a step takes {self.batch_size} queries on each of {self.world} rank(s), but there are only "
                f"{len(self.examples)} training queries with a positive; set training.batch_size to "
                f"{max(2, len(self.examples) // self.world)} or less"
            )

    @property
    def micro_steps(self) -> int:
        """Micro-steps of one epoch; what does not fill the last one waits for the next epoch's order."""
        return len(self.examples) // (self.batch_size * self.world)

    def batch(self, epoch: int, step: int) -> Batch:
        """This rank's queries and items of micro-step `step` of epoch `epoch`."""
        joined = self.batch_size * self.world
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.examples))
        chosen = order[step * joined : (step + 1) * joined]
        rng = np.random.default_rng([self.seed, epoch, step])
        random = rng.integers(0, self.num_items, (joined, self.random), dtype=np.int64)
        own = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        return self._assemble(chosen[own], random[own], epoch)

    def _assemble(self, chosen: I64, random_BR: I64, epoch: int) -> Batch:
        data = self.examples
        count = np.diff(data.positive_offsets)[chosen]
        turn = (epoch + hash_rows(self.seed, chosen) % np.uint64(2**31)).astype(np.int64) % count
        positives = data.positive_rows[data.positive_offsets[chosen] + turn]
        hard_BH = self._hard(chosen, epoch)
        items = np.unique(np.concatenate([positives, hard_BH[hard_BH >= 0], random_BR.ravel()]))
        return Batch(data.query_rows[chosen], positives, hard_BH, random_BR, items, data.weights[chosen])

    def _hard(self, chosen: I64, epoch: int) -> I64:
        """Each query's mined list in an order of its own, in windows that move on with the epochs."""
        data = self.examples
        count = np.diff(data.negative_offsets)[chosen]
        longest = int(count.max(initial=0))
        if not self.hard or not longest:
            return np.full((len(chosen), 0), -1, np.int64)
        column = np.arange(longest)
        # a key is the query's and the place's alone: what shares the batch must not change the order
        keys = hash_rows(self.seed, chosen[:, None] * LONGEST_LIST + column).astype(np.float64)
        keys[column[None, :] >= count[:, None]] = np.inf
        order = np.argsort(keys, axis=1, kind="stable")
        turn = (epoch * self.hard + np.arange(self.hard))[None, :] % np.maximum(count, 1)[:, None]
        place = np.take_along_axis(order, turn, axis=1)
        index = np.minimum(data.negative_offsets[chosen][:, None] + place, len(data.negative_rows) - 1)
        used = np.arange(self.hard)[None, :] < count[:, None]
        return np.where(used, data.negative_rows[index], -1)


def hash_rows(seed: int, values: I64) -> npt.NDArray[np.uint64]:
    """A well-mixed 64-bit number for each value (splitmix64, Steele 2014); equal on every machine."""
    with np.errstate(over="ignore"):
        x = values.astype(np.uint64) + np.uint64(seed % 2**32 + 1) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def candidate_masks(
    batch: Batch, columns_C: I64, labels: Labels,
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.uint8]]:
    """Which gathered columns may not be a negative of which query, and of what kind the others are.

    Returns:
        (masked [B, C]: known positives, their group mates and duplicates; kind [B, C] uint8 of training.geometry).
    """
    shape = (len(batch.query_rows), len(columns_C))
    masked = labels.known_mask(batch.query_rows, columns_C)
    wanted = np.broadcast_to(columns_C, shape)
    kind = np.full(shape, IN_BATCH, np.uint8)
    for rows, code in ((batch.random_BR, RANDOM), (batch.hard_BH, HARD)):
        owner = np.repeat(np.arange(shape[0]), rows.shape[1])
        flat = rows.ravel()
        kind[contains(owner[flat >= 0], flat[flat >= 0], wanted)] = code
    return masked, kind
