"""A generated catalogue of titles, with queries that readers might ask and their relevance labels.

Every title is drawn from latent traits. Its synopsis and the queries use different words for them. A title is labelled for
a query if it has all traits that the query names, or if it is another volume of the franchise that the query names.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa

from jobs.demo import words

MAX_POSITIVES: Final = 12
SYNOPSIS_WORDS: Final = (30, 70)
KIND_SHARES: Final = {"plot": 0.40, "mood": 0.22, "author_genre": 0.14, "franchise": 0.14, "audience": 0.10}
PRONOUNS: Final = ({"sub": "she", "pos": "her", "obj": "her"}, {"sub": "he", "pos": "his", "obj": "him"})
TABLES: Final = {
    **{"genre": words.GENRES, "setting": words.SETTINGS, "role": words.ROLES, "conflict": words.CONFLICTS},
    **{"event": words.EVENTS, "theme": words.THEMES, "tone": words.TONES, "era": words.ERAS},
    "audience": words.AUDIENCES,
}
SCIENCE_FICTION: Final = words.GENRE_NAMES.index("sci-fi")
GROWN_UP_GENRES: Final = {words.GENRE_NAMES.index("horror"), words.GENRE_NAMES.index("espionage")}
TEEN: Final = 2

_T = TypeVar("_T")
_Index = dict[tuple[str, Any], set[int]]


@dataclass(frozen=True)
class Catalogue:
    """Three tables that refer to each other by id.

    Attributes:
        corpus: One row per title: `id`, `title`, `text`, `genres` (list<string>), `demographic`, `author`, `group`
            (the franchise, or null), `popularity` (float64, in (0, 1]), `year` (int64).
        queries: One row per query: `id`, `text`, `kind`, `split` (train, dev or test).
        qrels: One row per judgement: `query_id`, `item_id`, `score` (int64: 2 the very title, 1 relevant, 0 judged
            irrelevant), `split`, `source` (editorial or click).
    """

    corpus: pa.Table
    queries: pa.Table
    qrels: pa.Table


@dataclass(frozen=True)
class _Author:
    name: str
    genres: tuple[int, ...]
    settings: tuple[tuple[int, str], ...]
    cast: tuple[tuple[str, int], ...]
    audience: int


@dataclass(frozen=True)
class _Title:
    """The latent traits of one title; traits in `TABLES` are row numbers of their table."""

    author: str
    place: str
    hero: tuple[str, int]
    friend: str
    genres: tuple[int, ...]
    setting: int
    role: int
    conflict: int
    event: int
    theme: int
    tone: int
    era: int
    audience: int
    group: str | None = None
    volume: int = 0

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

    Equal arguments give byte-equal tables, and `corpus` does not depend on `num_queries`. Every query has 1 to 12
    relevant titles, and no two queries have the same text.

    Raises:
        ValueError: fewer than 100 titles, no query, a negative `seed`, or more queries than the titles can answer
            differently (somewhat fewer than one per title is safe).
    """
    if num_titles < 100 or num_queries < 1 or seed < 0:
        raise ValueError(f"need >= 100 titles, >= 1 query and seed >= 0: {num_titles, num_queries, seed}")
    titles = _draw_titles(np.random.default_rng([seed, 0]), num_titles)
    queries = _draw_queries(np.random.default_rng([seed, 1]), titles, num_queries)
    corpus = _corpus_table(np.random.default_rng([seed, 2]), titles)
    return Catalogue(corpus, *_query_tables(queries, corpus["id"].to_pylist()))


def _pick(rng: np.random.Generator, options: Sequence[_T]) -> _T:
    return options[int(rng.integers(len(options)))]


def _fresh(taken: set[str], invent: Callable[[], str]) -> str:
    name = next(name for name in iter(invent, "") if name not in taken)
    taken.add(name)
    return name


def _join(rng: np.random.Generator, *parts: Sequence[str], by: str = "") -> str:
    return by.join(_pick(rng, part) for part in parts)


def _say(rng: np.random.Generator, wording: str) -> str:
    return re.sub(r"\(([^()]*)\)", lambda match: _pick(rng, match[1].split("|")), wording)


def _draw_titles(rng: np.random.Generator, count: int) -> list[_Title]:
    titles: list[_Title] = []
    taken: set[str] = set()
    while len(titles) < count:
        author = _draw_author(rng, taken)
        titles += [_draw_title(rng, author) for _ in range(int(rng.integers(2, 8)))]
        room = count - len(titles)
        if room >= 2 and rng.random() < 0.35:
            titles += _draw_franchise(rng, _draw_title(rng, author), taken, min(int(rng.integers(2, 13)), room))
    return [titles[i] for i in rng.permutation(count)]


def _draw_author(rng: np.random.Generator, taken: set[str]) -> _Author:
    def given_name() -> str:
        return _join(rng, words.GIVEN_STARTS, words.MIDDLES, words.GIVEN_ENDS)

    def invent() -> str:
        return given_name() + " " + _join(rng, words.FAMILY_STARTS, words.MIDDLES, words.FAMILY_ENDS)

    haunts = rng.permutation(len(words.SETTINGS))[:3].tolist()
    return _Author(
        name=_fresh(taken, invent),
        genres=tuple(rng.permutation(len(words.GENRES))[:2].tolist()),
        settings=tuple((i, _join(rng, words.PLACE_STARTS, words.MIDDLES, words.PLACE_ENDS)) for i in haunts),
        cast=tuple((given_name(), gender) for gender in (0, 1, 0, 1)),
        audience=int(rng.integers(len(words.AUDIENCES))),
    )


def _draw_title(rng: np.random.Generator, author: _Author) -> _Title:
    row = {field: int(rng.integers(len(table))) for field, table in TABLES.items()}
    main = author.genres[int(rng.random() < 0.2)]
    others = [genre for genre in rng.permutation(len(words.GENRES)).tolist() if genre != main]
    genres = (main, *others[: int(rng.choice(3, p=(0.55, 0.33, 0.12)))])
    setting, place = _pick(rng, author.settings)
    ages = words.SETTINGS[setting].tag
    age = _pick(rng, ages.replace("p", "") if SCIENCE_FICTION in genres else ages)
    audience = author.audience if rng.random() < 0.8 else row["audience"]
    hero, friend = (author.cast[i] for i in rng.permutation(len(author.cast))[:2])
    era = _pick(rng, [i for i, era in enumerate(words.ERAS) if era.tag == age])
    audience = max(audience, TEEN) if GROWN_UP_GENRES & set(genres) else audience
    rest = _draw_conflict(rng, main), row["event"], row["theme"], row["tone"], era, audience
    return _Title(author.name, place, hero, friend[0], genres, setting, row["role"], *rest)


def _draw_conflict(rng: np.random.Generator, genre: int) -> int:
    per_genre = len(words.CONFLICTS) // len(words.GENRES)
    return genre * per_genre + int(rng.integers(per_genre))


def _draw_franchise(rng: np.random.Generator, base: _Title, taken: set[str], size: int) -> list[_Title]:
    kinds = words.TITLE_ADJECTIVES, words.TITLE_NOUNS, words.GROUP_NOUNS
    base = replace(base, group=_fresh(taken, lambda: "The " + _join(rng, *kinds, by=" ")))
    events = rng.permutation(len(words.EVENTS))[:size].tolist()
    themes = rng.integers(len(words.THEMES), size=size).tolist()
    return [
        replace(base, volume=i + 1, event=events[i], theme=themes[i], conflict=_draw_conflict(rng, base.genres[0]))
        for i in range(size)
    ]


def _synopsis(rng: np.random.Generator, title: _Title) -> str:
    asides = [words.GENRE_ASIDES] if len(title.genres) > 1 else [words.ASIDES][: int(rng.integers(2))]
    while True:
        parts = _told(rng, title)
        sentences = [_pick(rng, kind).format_map(parts) for kind in (words.INTROS, words.TURNS, *asides, words.CLOSES)]
        text = " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)
        if SYNOPSIS_WORDS[0] <= len(text.split()) <= SYNOPSIS_WORDS[1]:
            return text


def _told(rng: np.random.Generator, title: _Title) -> dict[str, str]:
    name, gender = title.hero
    parts = {**PRONOUNS[gender], "hero": name, "friend": title.friend, "author": title.author, "place": title.place}
    for field, table in TABLES.items():
        parts[field] = _say(rng, table[title.values(field)[0]].told).format_map(parts)
    parts["label"] = parts["genre"] if rng.random() < 0.6 else _pick(rng, ("novel", "story", "tale"))
    parts["a_tone"] = ("an " if parts["tone"][0] in "aeiou" else "a ") + parts["tone"]
    parts["genres"] = " and ".join(_say(rng, words.GENRES[genre].tag) for genre in title.genres[1:])
    parts["when"], parts["lead"] = (f", {parts['era']}", f"{parts['era']}, ") if title.era else ("", "")
    return parts


def _headline(rng: np.random.Generator, title: _Title) -> str:
    names = {"place": title.place, "hero": title.hero[0]}
    names["adjective"], names["adjective2"] = rng.choice(words.TITLE_ADJECTIVES, 2, replace=False).tolist()
    names["noun"], names["noun2"] = rng.choice(words.TITLE_NOUNS, 2, replace=False).tolist()
    name = _pick(rng, words.TITLES).format_map(names)
    return f"{title.group} {title.volume}: {name}" if title.group else name


def _corpus_table(rng: np.random.Generator, titles: list[_Title]) -> pa.Table:
    taken: set[str] = set()
    return pa.table(
        {
            "id": [f"t{i:05d}" for i in range(len(titles))],
            "title": [_fresh(taken, partial(_headline, rng, title)) for title in titles],
            "text": [_synopsis(rng, title) for title in titles],
            "genres": [[words.GENRE_NAMES[genre] for genre in title.genres] for title in titles],
            "demographic": [words.AUDIENCES[title.audience].tag for title in titles],
            "author": [title.author for title in titles],
            "group": pa.array([title.group for title in titles], pa.string()),
            "popularity": (rng.permutation(len(titles)) + 1.0) ** -0.8,
            "year": rng.integers(1960, 2026, size=len(titles)),
        }
    )


def _draw_queries(rng: np.random.Generator, titles: list[_Title], count: int) -> list[_Query]:
    index: _Index = defaultdict(set)
    for i, title in enumerate(titles):
        for field in (*TABLES, "author", "group"):
            for value in title.values(field):
                index[field, value].add(i)
    quotas = {kind: int(count * share) for kind, share in KIND_SHARES.items()}
    quotas["plot"] += count - sum(quotas.values())
    queries: list[_Query] = []
    for kind, quota in quotas.items():
        queries += islice(_ask_distinct(rng, kind, titles, index), quota)
    if len(queries) < count:
        raise ValueError(f"{len(titles)} titles cannot answer {count} different queries; found {len(queries)}")
    return [queries[i] for i in rng.permutation(count)]


def _ask_distinct(rng: np.random.Generator, kind: str, titles: list[_Title], index: _Index) -> Iterator[_Query]:
    # Two queries of a kind with the same best answers are the same question, and could land in different splits.
    seen: set[object] = set()
    for _ in range(40 * len(titles)):
        query = _ask(rng, kind, _pick(rng, titles), index)
        best = frozenset(i for i, score in query.scores.items() if score == max(query.scores.values()))
        text = " ".join(query.text.lower().split())
        if best and seen.isdisjoint((best, text)):
            seen |= {best, text}
            yield query


def _ask(rng: np.random.Generator, kind: str, title: _Title, index: _Index) -> _Query:
    template = _pick(rng, words.QUERIES[kind])
    traits = {field: _pick(rng, title.values(field)) for field in re.findall(r"{(\w+)}", template)}
    parts = {name: _say(rng, TABLES[name][row].asked) if name in TABLES else row for name, row in traits.items()}
    scores = _relevance(kind, traits, index)
    if scores and rng.random() < 0.06:
        scores |= dict.fromkeys(sorted(index["author", title.author] - scores.keys())[:1], 0)
    source = "click" if all(scores.values()) and rng.random() < 0.4 else "editorial"
    return _Query(kind, template.format_map(parts), scores, source)


def _relevance(kind: str, traits: dict[str, Any], index: _Index) -> dict[int, int]:
    exact = set.intersection(*(index[trait] for trait in traits.items()))
    if traits.get("era") == 0 or traits.get("group", "") is None or len(exact) > MAX_POSITIVES:
        return {}
    if kind not in ("plot", "franchise"):
        return dict.fromkeys(sorted(exact), 1)
    volumes = index["group", traits["group"]] if kind == "franchise" else exact
    return {i: 2 if i in exact else 1 for i in sorted(volumes)} if len(exact) == 1 else {}


def _query_tables(queries: list[_Query], ids: list[str]) -> tuple[pa.Table, pa.Table]:
    names, tenth = [f"q{i:05d}" for i in range(len(queries))], len(queries) // 10
    splits = ["train"] * (len(queries) - 2 * tenth) + ["dev"] * tenth + ["test"] * tenth
    rows = list(zip(names, splits, queries, strict=True))
    asked = [{"id": name, "text": query.text, "kind": query.kind, "split": split} for name, split, query in rows]
    judged = [
        {"query_id": name, "item_id": ids[i], "score": score, "split": split, "source": query.source}
        for name, split, query in rows
        for i, score in query.scores.items()
    ]
    return pa.Table.from_pylist(asked), pa.Table.from_pylist(judged)
