"""A generated catalogue of titles, with the queries that readers might ask and their relevance labels.

Every title is drawn from latent traits. Its synopsis words them one way and queries word them another way; a title is
labelled for a query exactly when it has all the traits which the query names.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa

from jobs import catalogue_words as words

MAX_POSITIVES: Final = 12
MIN_TITLES: Final = 100
SYNOPSIS_WORDS: Final = (30, 70)

# The fields that a template names are the traits that a positive must have.
QUERIES: Final = {
    "plot": words.lines("""
a story about {role} {conflict} {setting}
{setting}, {role} ends up {conflict}
which book has {role} {conflict} after {event}?
looking for the one where {event} and {role} winds up {conflict}
trying to remember a title: {event}, and somebody {setting} is {conflict}
{role} {conflict}
I read a novel set {setting}, it was about {conflict} and {theme}
the book in which {event}; the hero is {role} living {setting}
"""),
    "mood": words.lines("""
{tone} {genre} set {setting}
I am in the mood for {genre}, something {tone} about {theme}
{genre} set {setting} and {era}
{tone} {genre} {era}, please
any {genre} about {theme} that take place {setting}?
something {tone} about {theme}, set {setting}
{tone} {genre} with {role} in the lead
"""),
    "author_genre": words.lines("""
{genre} by {author}
{author} when it is {genre}
what has {author} written in the way of {genre}?
only the {genre} from {author}, not the rest
"""),
    "franchise": words.lines("""
{group}, the volume where {event}
which part of {group} has someone {conflict}?
the {group} instalment in which {event}
{group} series: the one about {conflict}
"""),
    "audience": words.lines("""
{genre} {audience} about {theme}
need a present: {tone} {genre} {audience}, set {setting}
{tone} books {audience}, {theme} is the subject
{genre} set {setting}, suitable {audience}
"""),
}
KIND_SHARES: Final = {"plot": 0.40, "mood": 0.22, "author_genre": 0.14, "franchise": 0.14, "audience": 0.10}
PRONOUNS: Final = ({"sub": "she", "pos": "her", "obj": "her"}, {"sub": "he", "pos": "his", "obj": "him"})
TABLES: Final = {
    "genre": words.GENRES,
    "setting": words.SETTINGS,
    "role": words.ROLES,
    "conflict": words.CONFLICTS,
    "event": words.EVENTS,
    "theme": words.THEMES,
    "tone": words.TONES,
    "era": words.ERAS,
    "audience": words.AUDIENCES,
}
CONFLICTS_PER_GENRE: Final = len(words.CONFLICTS) // len(words.GENRES)
SCIENCE_FICTION: Final = 3
# Horror and spy stories are not published for the two youngest audiences.
GROWN_UP_GENRES: Final = frozenset({4, 5})

_T = TypeVar("_T")
_Index = dict[tuple[str, Any], set[int]]


@dataclass(frozen=True)
class Catalogue:
    """Three tables that refer to each other by id.

    Attributes:
        corpus: One row per title: `id`, `title`, `text`, `genres` (list<string>), `demographic`, `author`, `group`
            (the franchise, or null), `popularity` (float64, in (0, 1]), `year` (int64).
        queries: One row per query: `id`, `text`, `kind`, `split` (train, dev or test).
        qrels: One row per judgement: `query_id`, `item_id`, `score` (int64: 2 exactly it, 1 relevant, 0 judged
            irrelevant), `split`, `source` (editorial or click).
    """

    corpus: pa.Table
    queries: pa.Table
    qrels: pa.Table


@dataclass(frozen=True)
class _Author:
    name: str
    genres: tuple[int, int]
    settings: tuple[tuple[int, str], ...]
    cast: tuple[tuple[str, int], ...]
    audience: int
    debut: int


@dataclass(frozen=True)
class _Title:
    """The latent traits of one title; those in `TABLES` are row numbers there."""

    author: str
    group: str | None
    genres: tuple[int, ...]
    setting: int
    place: str
    hero: tuple[str, int]
    friend: str
    role: int
    conflict: int
    event: int
    theme: int
    tone: int
    era: int
    audience: int
    year: int

    def values(self, field: str) -> tuple[Any, ...]:
        return self.genres if field == "genre" else (getattr(self, field),)


@dataclass(frozen=True)
class _Query:
    kind: str
    text: str
    scores: dict[int, int]
    source: str


def generate_catalogue(num_titles: int = 5000, num_queries: int = 4000, seed: int = 7) -> Catalogue:
    """Invent `num_titles` titles and `num_queries` queries whose labels follow from the traits of the titles.

    The three tables are equal byte for byte whenever the arguments are equal, and `corpus` does not depend on
    `num_queries`. Every query has 1 to 12 rows of positive score, and no two queries have the same text.

    Raises:
        ValueError: if there are fewer than 100 titles, if `num_queries` or `seed` is negative, or if so few titles
            cannot answer so many different queries (one query for each title is about the most).
    """
    if num_titles < MIN_TITLES or num_queries < 0 or seed < 0:
        raise ValueError(f"need >= {MIN_TITLES} titles, >= 0 queries and seed >= 0: {num_titles, num_queries, seed}")
    titles = _draw_titles(np.random.default_rng([seed, 0]), num_titles)
    queries = _draw_queries(np.random.default_rng([seed, 1]), titles, num_queries)
    corpus = _corpus_table(np.random.default_rng([seed, 2]), titles)
    return Catalogue(corpus, *_query_tables(queries, corpus["id"].to_pylist()))


def _pick(rng: np.random.Generator, options: Sequence[_T]) -> _T:
    return options[int(rng.integers(len(options)))]


def _fresh(taken: set[str], invent: Callable[[], str]) -> str:
    name = invent()
    while name.lower() in taken:
        name = invent()
    taken.add(name.lower())
    return name


def _say(rng: np.random.Generator, wording: str) -> str:
    return re.sub(r"\(([^()]*)\)", lambda match: _pick(rng, match[1].split("|")), wording)


def _draw_titles(rng: np.random.Generator, count: int) -> list[_Title]:
    titles: list[_Title] = []
    names: set[str] = set()
    while len(titles) < count:
        author = _draw_author(rng, names)
        titles += [_draw_title(rng, author) for _ in range(int(rng.integers(2, 8)))]
        if rng.random() < 0.35:
            titles += _draw_franchise(rng, _draw_title(rng, author), names)
    return [titles[i] for i in rng.permutation(count)]


def _draw_author(rng: np.random.Generator, names: set[str]) -> _Author:
    def given() -> str:
        return _pick(rng, words.GIVEN_STARTS) + _pick(rng, words.GIVEN_ENDS)

    def family() -> str:
        return _pick(rng, words.FAMILY_STARTS) + _pick(rng, words.FAMILY_ENDS)

    home, other = (int(genre) for genre in rng.permutation(len(words.GENRES))[:2])
    haunts = (int(setting) for setting in rng.permutation(len(words.SETTINGS))[:3])
    return _Author(
        name=_fresh(names, lambda: f"{given()} {family()}"),
        genres=(home, other),
        settings=tuple((haunt, _pick(rng, words.PLACE_STARTS) + _pick(rng, words.PLACE_ENDS)) for haunt in haunts),
        cast=tuple((_fresh(set(), given), int(rng.integers(2))) for _ in range(4)),
        audience=int(rng.integers(len(words.AUDIENCES))),
        debut=int(rng.integers(1960, 2013)),
    )
