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

# Share of the queries, and the templates. The fields that a template names are the traits that a positive must have.
QUERY_KINDS: Final[dict[str, tuple[float, tuple[str, ...]]]] = {
    "plot": (
        0.40,
        (
            "a story about {role} {conflict} {setting}",
            "{setting}, {role} ends up {conflict}",
            "which book has {role} {conflict} after {event}?",
            "looking for the one where {event} and {role} winds up {conflict}",
            "trying to remember a title: {event}, and somebody {setting} is {conflict}",
            "{role} {conflict}",
            "I read a novel set {setting}, it was about {conflict} and {theme}",
            "the book in which {event}; the hero is {role} living {setting}",
        ),
    ),
    "mood": (
        0.22,
        (
            "{tone} {genre} set {setting}",
            "I am in the mood for {genre}, something {tone} about {theme}",
            "{genre} set {setting} and {era}",
            "{tone} {genre} {era}, please",
            "any {genre} about {theme} that take place {setting}?",
            "something {tone} about {theme}, set {setting}",
            "{tone} {genre} with {role} in the lead",
        ),
    ),
    "author_genre": (
        0.14,
        (
            "{genre} by {author}",
            "{author} when it is {genre}",
            "what has {author} written in the way of {genre}?",
            "only the {genre} from {author}, not the rest",
        ),
    ),
    "franchise": (
        0.14,
        (
            "{group}, the volume where {event}",
            "which part of {group} has someone {conflict}?",
            "the {group} instalment in which {event}",
            "{group} series: the one about {conflict}",
        ),
    ),
    "audience": (
        0.10,
        (
            "{genre} {audience} about {theme}",
            "need a present: {tone} {genre} {audience}, set {setting}",
            "{tone} books {audience}, {theme} is the subject",
            "{genre} set {setting}, suitable {audience}",
        ),
    ),
}

INTROS: Final = (
    "{hero} is {role} {setting}{when}.",
    "{Role} named {hero} has built a small life {setting}{when}.",
    "{Setting}{when}, people know {hero} only as {role}.",
    "{When_or}{hero} has spent years {setting} as {role}.",
    "Nobody {setting} pays much attention to {hero}, {role}{when}.",
    "{When_or}{role} called {hero} keeps out of trouble {setting}.",
)
TURNS: Final = (
    "When {event}, {sub} must {conflict}.",
    "Then {event}, and {hero} sets out to {conflict}.",
    "Everything changes once {event}: now {sub} has to {conflict}.",
    "{Sub} has vowed to {conflict}, and matters grow worse when {event}.",
    "But {event}, and suddenly it falls to {hero} to {conflict}.",
    "The plan is to {conflict}; nothing goes to plan after {event}.",
)
ASIDES: Final = (
    "Only {friend} believes {sub} can do it.",
    "{friend} offers help, though not for free.",
    "Even {friend}, who has known {obj} longest, advises against it.",
    "With {friend} at {pos} side, {sub} starts to see a way through.",
)
CLOSES: Final = (
    "In this {tone} {label} {audience}, {author} writes about {theme}.",
    "{author} turns {theme} into {a_tone} {label} {audience}.",
    "{A_tone} {label} {audience} by {author}, with {theme} at its heart.",
    "{author} has written {a_tone} {label} {audience}, and the real subject is {theme}.",
)
TITLES: Final = (
    "The {adjective} {noun}",
    "The {noun} of {place}",
    "{hero} and the {adjective} {noun}",
    "{adjective} {noun}, {adjective2} {noun2}",
    "A {noun} for {hero}",
    "The {noun} and the {noun2}",
    "{place} and Other {noun2}s",
)
PRONOUNS: Final = ({"sub": "she", "pos": "her", "obj": "her"}, {"sub": "he", "pos": "his", "obj": "him"})
SCIENCE_FICTION: Final = 3
# Genres that are not published for children or for middle grade readers: horror and spy stories.
GROWN_UP_GENRES: Final = frozenset({4, 5})

_T = TypeVar("_T")
_Traits = tuple[words.Trait, ...]


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
