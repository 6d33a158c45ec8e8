"""Which queries, positives and negatives make up each step: a pure function of (seed, epoch, step).

The batch of all ranks together is drawn at once and then cut by rank, so that W ranks with B queries see exactly what
one rank with W·B queries would. Nothing that matters is kept between steps: a resumed run draws what it would have drawn.

B queries of one rank, H hard negatives, R random negatives, U distinct items, C gathered columns, E examples, N items.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from cluster.errors import ConfigError
from cluster.labels.labels import distinct
from cluster.tables.tables import F32, I64
from training.feed.sources import F64, Mixture, cumulative_popularity, describe, draw_items, epoch_order, plan_mixture, too_few
from training.settings import TrainingSettings

LOOKED_AT = 2**16
"""Examples whose mined negatives are put in order together."""
LONGEST_LIST = np.int64(2**20)
"""More than any query has mined negatives."""


@dataclass(frozen=True)
class Examples:
    """What there is to train on. An example is a query with the positives of one source: a query whose labels come from
    two sources is two examples."""

    query_rows: I64
    """[E]"""
    positive_offsets: I64
    """[E+1] into positive_rows; every example has a positive."""
    positive_rows: I64
    negative_offsets: I64
    """[E+1] into negative_rows; all zero before anything is mined."""
    negative_rows: I64
    weights: npt.NDArray[np.float32]
    """[E] weight of each example's loss."""
    source_codes: I64
    """[E] into source_names."""
    source_names: tuple[str, ...]
    """Distinct, ascending; "" for labels without a source."""
    positive_scores: F32 | None = None
    """A teacher's, of positive_rows; NaN: it has not read the pair. None: there is no teacher."""
    negative_scores: F32 | None = None
    """The same of negative_rows."""

    def __len__(self) -> int:
        return len(self.query_rows)


@dataclass(frozen=True)
class Batch:
    """One micro-step of one rank, or of all ranks together in rank order."""

    query_rows: I64
    positive_rows: I64
    hard_BH: I64  # noqa: N815
    """Mined negatives, -1 where a query has fewer; H is 0 where nothing is mined."""
    random_BR: I64  # noqa: N815
    item_rows: I64
    """[U] the distinct items, ascending: each is encoded once however many queries use it."""
    weights: npt.NDArray[np.float32]
    teacher_BL: F32 | None = None  # noqa: N815
    """[B, 1 + H] a teacher's scores of the positive and the mined negatives; NaN: it has not read the pair, or there is none."""

    @classmethod
    def of(
        cls,
        query_rows: I64,
        positive_rows: I64,
        hard_BH: I64,
        random_BR: I64,
        weights: npt.NDArray[np.float32],
        teacher_BL: F32 | None = None,
    ) -> Batch:
        """With the distinct items of them all."""
        items = distinct(np.concatenate([positive_rows, hard_BH[hard_BH >= 0], random_BR.ravel()]))
        return cls(query_rows, positive_rows, hard_BH, random_BR, items, weights, teacher_BL)

    def rows(self, part: slice) -> Batch:
        """The batch of these queries alone, with their items only."""
        return Batch.of(
            self.query_rows[part],
            self.positive_rows[part],
            self.hard_BH[part],
            self.random_BR[part],
            self.weights[part],
            None if self.teacher_BL is None else self.teacher_BL[part],
        )


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
    caps: tuple[float, ...] = ()
    """Largest share of an epoch of each of the examples' sources; empty: none has a cap."""
    joined_size: int = 0
    """Queries of all ranks together in a micro-step; 0: batch_size of each. Set where a training goes on with another number of
    ranks, or follows one on another: rows are then cut as evenly as they go."""
    one_source_per_batch: bool = False
    cumulative_popularity: F64 | None = field(default=None, repr=False)
    """How likely the items of the pool are drawn as random negatives (`training.feed.sources`); None: all alike."""
    pool: I64 | None = field(default=None, repr=False)
    """The item rows that random negatives are drawn from; None: all."""
    unknown_sources: tuple[str, ...] = ()
    """Named in training.label_sources, but by no training label."""
    _orders: dict[int, tuple[I64, I64]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Of the epoch asked for last."""

    @classmethod
    def of(
        cls,
        examples: Examples,
        settings: TrainingSettings,
        *,
        num_items: int,
        mined: bool,
        seed: int,
        rank: int,
        world: int,
        joined_size: int = 0,
        pool: I64 | None = None,
    ) -> BatchPlan:
        """The plan that the settings ask for.

        Args:
            mined: whether there are mined negatives; where not, as many random ones are drawn in their place.

        Raises:
            ConfigError: the examples do not fill a single step.
        """
        popularity = None
        if settings.random_popularity:
            counts = np.bincount(examples.positive_rows, minlength=num_items)
            popularity = cumulative_popularity(counts if pool is None else counts[pool], settings.random_popularity)
        return cls(
            examples,
            num_items,
            settings.batch_size,
            settings.hard_negatives if mined else 0,
            settings.random_negatives(mined=mined),
            seed,
            rank,
            world,
            caps=tuple(settings.source(name).cap for name in examples.source_names),
            one_source_per_batch=settings.one_source_per_batch,
            cumulative_popularity=popularity,
            joined_size=joined_size,
            pool=pool,
            unknown_sources=tuple(sorted(settings.label_sources.keys() - set(examples.source_names))),
        )

    def __post_init__(self) -> None:
        if self.micro_steps < 1:
            raise ConfigError(too_few(self.mixture, self.examples.source_names, batch_size=self.batch_size, world=self.world))

    @cached_property
    def mixture(self) -> Mixture:
        """What every epoch takes of each source."""
        names = self.examples.source_names
        sizes = np.bincount(self.examples.source_codes, minlength=len(names)).astype(np.int64)
        caps = np.array(self.caps or [1.0] * len(names), np.float64)
        return plan_mixture(sizes, caps, self.together, one_source_per_batch=self.one_source_per_batch)

    @property
    def together(self) -> int:
        """Queries of all ranks together in a micro-step."""
        return self.joined_size or self.batch_size * self.world

    def rows_of(self, rank: int) -> slice:
        """The rows of the joined batch that are a rank's."""
        return slice(self.together * rank // self.world, self.together * (rank + 1) // self.world)

    @property
    def micro_steps(self) -> int:
        """Micro-steps, the same in every epoch; what does not fill the last one waits for another epoch."""
        return self.mixture.steps

    def joined(self, epoch: int, step: int) -> Batch:
        """The queries and items of all ranks together in micro-step `step` of epoch `epoch`, W·B rows in rank order."""
        joined = self.together
        chosen, turns = (values[step * joined : (step + 1) * joined] for values in self._order(epoch))
        random_BR, data = self._random(epoch, step), self.examples
        count = data.positive_offsets[chosen + 1] - data.positive_offsets[chosen]
        turn = (turns + (hash_rows(self.seed, chosen) % np.uint64(2**31)).astype(np.int64)) % count
        place = data.positive_offsets[chosen] + turn
        hard_BH = self._hard(chosen, turns)
        teacher_BL = None
        if data.positive_scores is not None and data.negative_scores is not None:
            index_BH = self._hard(chosen, turns, places=True)
            hard_scores = np.where(index_BH < 0, np.float32(np.nan), data.negative_scores[index_BH])
            teacher_BL = np.concatenate([data.positive_scores[place][:, None], hard_scores], axis=1)
        positives, weights = data.positive_rows[place], data.weights[chosen]
        return Batch.of(data.query_rows[chosen], positives, hard_BH, random_BR, weights, teacher_BL)

    def named_items(self, micro_steps: Iterable[tuple[int, int]]) -> I64:
        """The rows of all items that some micro-steps may name, ascending: every positive, the mined negatives whose turn
        comes, and the random ones that are drawn.

        Args:
            micro_steps: (epoch, step) of each, from the first epoch on.
        """
        data, steps = self.examples, list(micro_steps)
        epochs = 1 + max((epoch for epoch, _ in steps), default=0)
        found = [data.positive_rows]
        for start in range(0, len(data), LOOKED_AT):
            chosen = np.arange(start, min(start + LOOKED_AT, len(data)))
            longest = int(np.diff(data.negative_offsets[start : chosen[-1] + 2]).max())
            for turn in range(min(epochs, -(-longest // max(1, self.hard)))):
                rows = self._hard(chosen, np.full(len(chosen), turn))
                found.append(np.unique(rows[rows >= 0]))
        if self.random:
            found += [np.unique(self._random(epoch, step)) for epoch, step in steps]
        return np.unique(np.concatenate(found))

    def _random(self, epoch: int, step: int) -> I64:
        """[W * B, R] random negatives of a micro-step."""
        rng = np.random.default_rng([self.seed, epoch, step])
        shape = (self.together, self.random)
        drawn = draw_items(rng, shape, self.num_items if self.pool is None else len(self.pool), self.cumulative_popularity)
        return drawn if self.pool is None else self.pool[drawn]

    def _order(self, epoch: int) -> tuple[I64, I64]:
        order = self._orders.get(epoch)
        if order is None:
            order = epoch_order(self.examples.source_codes, self.mixture, seed=self.seed, epoch=epoch)
            self._orders.clear()
            self._orders[epoch] = order
        return order

    def _hard(self, chosen: I64, turns: I64, *, places: bool = False) -> I64:
        """[B, H] mined negatives of some examples; `places`: their places among all mined negatives instead of their rows."""
        data = self.examples
        width = self.hard if len(data.negative_rows) else 0
        values = None if places else data.negative_rows
        return take_turns(data.negative_offsets, values, chosen, turns, width, self.seed)


def take_turns(
    offsets: I64, values: I64 | None, chosen: I64, turns: I64, width: int, seed: int, *, names: I64 | None = None
) -> I64:
    """[len(chosen), width] values of each list, in an order of the list's own, in windows that move on whenever its turn comes;
    -1 where a list is shorter.

    Args:
        offsets, values: all lists; without values their places are given. chosen: the lists that are taken from; turns: how
            often each was before.
        names: numbers of the chosen lists that their orders come from; None: their places.
    """
    count = offsets[chosen + 1] - offsets[chosen]
    longest = int(count.max(initial=0))
    if not width or not longest:
        return np.full((len(chosen), width), -1, np.int64)
    column = np.arange(longest)
    # a key is the list's and the place's alone: what shares the batch must not change the order
    keys = hash_rows(seed, (chosen if names is None else names)[:, None] * LONGEST_LIST + column).astype(np.float64)
    keys[column[None, :] >= count[:, None]] = np.inf
    order = np.argsort(keys, axis=1, kind="stable")
    turn = (turns[:, None] * width + np.arange(width)) % np.maximum(count, 1)[:, None]
    place = np.take_along_axis(order, turn, axis=1)
    index = np.minimum(offsets[chosen][:, None] + place, offsets[-1] - 1)
    return np.where(np.arange(width)[None, :] < count[:, None], index if values is None else values[index], -1)


def describe_mixture(plan: BatchPlan) -> str | None:
    """What every epoch takes of each source, in one line for people; None: there is one source, without a cap."""
    line = describe(plan.mixture, plan.examples.source_names)
    if plan.unknown_sources:
        unknown = ", ".join(f'"{name}"' for name in plan.unknown_sources)
        return f"{line or 'sources'}; no training label is of {unknown}, which training.label_sources names"
    return line


def hash_rows(seed: int, values: I64) -> npt.NDArray[np.uint64]:
    """A well-mixed 64-bit number for each value (splitmix64, Steele 2014); equal on every machine."""
    with np.errstate(over="ignore"):
        x = values.astype(np.uint64) + np.uint64(seed % 2**32 + 1) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
