"""A made-up catalogue where one knows what makes an item hard: for docs/why-hard-negatives.md.

Every work has a family (crime), a genre in it (Nordic crime), and a title of its own. A base vector is these three parts and
a style, mixed by one rotation:

    item  = R [ genre | title × (that of the work)         | style × (its own) ]
    query = R [ genre | title × (that of the work + 1.5 × noise) | style × (its own) ]

Style agrees for no pair: it is what an off-the-shelf model sees and your task does not care about. The title part is small:
items of one genre are near-misses, and only training makes it count. An item is one edition of a work; all editions answer a
query.

N items, Q queries, D dimensions, E editions of a work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cluster.labels.labels import Labels
from cluster.tables.tables import F32, I64, offsets_of
from eval.metrics import Judgements

GENRE_DIMS, TITLE_DIMS, STYLE_DIMS = 28, 20, 16
DIMENSIONS = GENRE_DIMS + TITLE_DIMS + STYLE_DIMS
FAMILY_SHARE = 0.6
"""How much of a genre's direction is its family's: the cosine of two genres of a family is about its square."""


@dataclass(frozen=True)
class Recipe:
    """How a catalogue is made."""

    works: int = 50_000
    genre_size: int = 20
    """Works of a genre."""
    families: int = 50
    editions: int = 1
    """Items of a work. Training labels name one of them; the others are relevant too, and nobody says so."""
    train: int = 8_000
    """Training queries. They and the dev queries are about different works while there are enough."""
    dev: int = 4_000
    title: float = 0.35
    """Length of the title part beside a genre part of length 1."""
    style: float = 0.8
    noise: float = 1.5
    """Length of a query's noise, as a share of its title part."""
    edition: float = 0.15
    """By how much editions of a work differ, as a share of the title part."""


@dataclass(frozen=True)
class World:
    """A catalogue, its queries, and what is known of them."""

    items_ND: F32  # noqa: N815
    """Base vectors, unit length: what an off-the-shelf model gives."""
    queries_QD: F32  # noqa: N815
    train_rows: I64
    dev_rows: I64
    labels: Labels
    """What training is told: one item per query."""
    positive_Q: I64  # noqa: N815
    """The labelled item of each query."""
    truth: Judgements
    """What is so: every edition of the query's work."""
    work_N: I64  # noqa: N815
    genre_N: I64  # noqa: N815
    work_Q: I64  # noqa: N815

    def false_negatives(self, query_rows: I64, item_rows_C: I64) -> npt.NDArray[np.bool_]:
        """[B, C] whether an item answers a query that is labelled with another item."""
        same = self.work_N[item_rows_C][None, :] == self.work_Q[query_rows][:, None]
        return same & (item_rows_C[None, :] != self.positive_Q[query_rows][:, None])


def make_world(recipe: Recipe, seed: int, *, group: Literal["none", "genre", "work"] = "none") -> World:
    """Draw a catalogue; the same recipe and seed give the same one.

    Args:
        group: what the labels call the same thing, and never a negative: nothing, a genre (what a general model knows), or a
            work with all its editions.
    """
    rng = np.random.default_rng(seed)
    works, count = recipe.works, recipe.train + recipe.dev
    num_items = works * recipe.editions
    genre_W = np.arange(works) // recipe.genre_size
    part_W = _genre_parts(rng, recipe)[genre_W]
    title_W = _gaussian(rng, works, TITLE_DIMS)
    work_N = np.repeat(np.arange(works), recipe.editions)
    work_Q = np.resize(rng.permutation(works), count)
    rotation = np.linalg.qr(rng.standard_normal((DIMENSIONS, DIMENSIONS)))[0]

    def vectors(rows: I64, change: float) -> F32:
        title = title_W[rows] + change * _gaussian(rng, len(rows), TITLE_DIMS)
        style = _gaussian(rng, len(rows), STYLE_DIMS)
        return _unit(np.hstack([part_W[rows], recipe.title * title, recipe.style * style]) @ rotation).astype(np.float32)

    items = vectors(work_N, recipe.edition if recipe.editions > 1 else 0.0)
    queries = vectors(work_Q, recipe.noise)
    positive_Q = work_Q * recipe.editions + rng.integers(recipe.editions, size=count)
    groups = {"none": np.full(num_items, -1), "genre": genre_W[work_N], "work": work_N}
    labels = Labels(
        num_queries=count,
        num_items=num_items,
        offsets=offsets_of(np.ones(count, np.int64)),
        item_rows=positive_Q,
        scores=np.ones(count, np.int64),
        text_codes=np.arange(num_items),
        group_codes=groups[group],
    )
    everyone = (work_Q[:, None] * recipe.editions + np.arange(recipe.editions)).ravel()
    truth = Judgements.from_triples(np.repeat(np.arange(count), recipe.editions), everyone, np.ones(len(everyone)))
    return World(
        items,
        queries,
        np.arange(recipe.train),
        np.arange(recipe.train, count),
        labels,
        positive_Q,
        truth,
        work_N,
        genre_W[work_N],
        work_Q,
    )


def _genre_parts(rng: np.random.Generator, recipe: Recipe) -> npt.NDArray[np.float64]:
    genres = -(-recipe.works // recipe.genre_size)
    family = _unit(rng.standard_normal((recipe.families, GENRE_DIMS)))[np.arange(genres) % recipe.families]
    own = _unit(rng.standard_normal((genres, GENRE_DIMS)))
    return _unit(FAMILY_SHARE * family + np.sqrt(1 - FAMILY_SHARE**2) * own)


def _gaussian(rng: np.random.Generator, rows: int, dims: int) -> npt.NDArray[np.float64]:
    """Of length about 1."""
    return rng.standard_normal((rows, dims)) / np.sqrt(dims)


def _unit(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    result: npt.NDArray[np.float64] = x / np.linalg.norm(x, axis=1, keepdims=True)
    return result
