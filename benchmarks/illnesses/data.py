"""The data of `benchmarks.illnesses`: the demo's catalogue, what is done to it to make a training ill, and its tables.

A plant takes data and a random generator and returns other data; it has a stable `repr`, which keys what was trained on it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from cluster.storage.store import Store
from cluster.tables.tables import Part, part_name, write_part
from jobs.demo.catalogue import generate_catalogue

DEV_SHARE = 0.3
"""Of the queries; more than the demo's, so that differences show."""
PART_ROWS = 4096
Row = Mapping[str, Any]


class Label(NamedTuple):
    """One judgement."""

    query: int
    item: int
    score: int
    source: str


@dataclass(frozen=True)
class Data:
    """Items, queries and labels; a row is a position in its list."""

    items: Sequence[Row]
    """text, group (None: none), popularity, author, genre, and what a plant adds."""
    queries: Sequence[Row]
    """text, kind, split: train, dev, earlier (what the off-the-shelf model was trained on), general or unused."""
    labels: Sequence[Label]

    def rows(self, split: str) -> list[int]:
        """The queries of a split."""
        return [row for row, query in enumerate(self.queries) if query["split"] == split]


Plant = Callable[[Data, np.random.Generator], Data]


def catalogue(titles: int, seed: int) -> Data:
    """The demo's catalogue, a new one for each seed."""
    made = generate_catalogue(titles, titles * 4 // 5, seed=1000 + seed)
    items = [
        {
            "text": f"{row['title']} by {row['author']} | {', '.join(row['genres'])} | {row['text']}",
            "group": row["group"],
            "popularity": row["popularity"],
            "author": row["author"],
            "genre": row["genres"][0],
        }
        for row in made.corpus.to_pylist()
    ]
    asked = made.queries.to_pylist()
    dev = int(len(asked) * (1 - DEV_SHARE))
    queries = [
        {"text": row["text"], "kind": row["kind"], "split": "train" if place < dev else "dev"} for place, row in enumerate(asked)
    ]
    item_row, query_row = (
        {name: row for row, name in enumerate(table["id"].to_pylist())} for table in (made.corpus, made.queries)
    )
    labels = [
        Label(query_row[row["query_id"]], item_row[row["item_id"]], row["score"], row["source"]) for row in made.qrels.to_pylist()
    ]
    return Data(items, queries, labels)


def _of_split(data: Data, split: str) -> tuple[list[Label], list[Label]]:
    """(labels of the queries of a split, all others)."""
    inside, outside = [], []
    for label in data.labels:
        (inside if data.queries[label.query]["split"] == split else outside).append(label)
    return inside, outside


def _relevant(labels: Sequence[Label]) -> dict[int, list[Label]]:
    """Query -> its labels above 0."""
    found: dict[int, list[Label]] = defaultdict(list)
    for label in labels:
        if label.score > 0:
            found[label.query].append(label)
    return dict(found)


def _reworded(text: str, rng: np.random.Generator, dropped: float) -> str:
    words = text.split()
    return " ".join(words[place] for place in np.flatnonzero(rng.random(len(words)) >= dropped))


@dataclass(frozen=True)
class OneLabelEach:
    """Training queries keep one relevant item each; what else is relevant is no longer known, nor are groups."""

    def __call__(self, data: Data, rng: np.random.Generator) -> Data:
        """The data with labels hidden."""
        train, rest = _of_split(data, "train")
        kept = [found[int(rng.integers(len(found)))] for found in _relevant(train).values()]
        return replace(data, labels=[*rest, *kept], items=[{**item, "group": None} for item in data.items])


@dataclass(frozen=True)
class Editions:
    """Every title has further editions with nearly the same words, as relevant as the first."""

    copies: int = 1
    dropped: float = 0.1
    """Share of an edition's words that are missing."""
    known: bool = False
    """Training labels name the editions too; dev labels always do."""
    wanted: bool = True
    """Dev labels name the editions; if not, a reader wants a title once, and its editions are in the way."""

    def __call__(self, data: Data, rng: np.random.Generator) -> Data:
        """The data with `copies` times as many items more."""
        count = len(data.items)
        more = [
            {**item, "text": _reworded(item["text"], rng, self.dropped), "group": item["group"] if self.known else None}
            for _ in range(self.copies)
            for item in data.items
        ]
        splits = {"dev"} if self.wanted else set()
        splits |= {"train"} if self.known else set()
        labels = [
            label._replace(item=label.item + count * copy)
            for copy in range(1, self.copies + 1)
            for label in data.labels
            if data.queries[label.query]["split"] in splits
        ]
        return replace(data, items=[*data.items, *more], labels=[*data.labels, *labels])


@dataclass(frozen=True)
class FewItems:
    """A share of the training queries was answered with a click on one of a few items, whatever was asked."""

    count: int = 10
    share: float = 0.6
    popular: bool = True
    """The best sellers; if not, any items."""

    def __call__(self, data: Data, rng: np.random.Generator) -> Data:
        """The data with swayed training labels."""
        order = np.argsort([-item["popularity"] for item in data.items]) if self.popular else rng.permutation(len(data.items))
        few = order[: self.count]
        train, rest = _of_split(data, "train")
        swayed = {
            query: Label(query, int(rng.choice(few)), 1, "click") for query in _relevant(train) if rng.random() < self.share
        }
        return replace(data, labels=[*rest, *(label for label in train if label.query not in swayed), *swayed.values()])


@dataclass(frozen=True)
class SyntheticQueries:
    """Training queries are made from the items: some of their words behind a phrase that no person writes."""

    words: int = 8
    dev: int = 200
    """Made queries that are evaluated beside the real ones."""
    kept: bool = False
    """The real training queries stay, too."""
    phrase: str = "document that matches the following excerpt"

    def __call__(self, data: Data, rng: np.random.Generator) -> Data:
        """The data with made queries."""
        queries: list[Row] = [
            {**query, "split": "unused" if query["split"] == "train" and not self.kept else query["split"]}
            for query in data.queries
        ]
        items = rng.permutation(len(data.items))[: len(data.rows("train")) + self.dev]
        labels = list(data.labels)
        for place, item in enumerate(items.tolist()):
            excerpt = rng.permutation(data.items[item]["text"].split())[: self.words]
            queries.append(
                {"text": f"{self.phrase} {' '.join(excerpt)}", "kind": "made", "split": "dev" if place < self.dev else "train"}
            )
            labels.append(Label(len(queries) - 1, item, 1, "synthetic"))
        return replace(data, queries=queries, labels=labels)


@dataclass(frozen=True)
class ExactTags:
    """Queries carry the author and the shelf of an item they want, in their text and as columns."""

    share: float = 1.0
    """Of the queries that do."""

    def __call__(self, data: Data, rng: np.random.Generator) -> Data:
        """The data with tags."""
        shelves = [f"shelf{int(code):04d}" for code in rng.integers(0, len(data.items) // 4, len(data.items))]
        items = [
            {**item, "shelf": shelf, "text": f"{item['text']} | {shelf}"} for item, shelf in zip(data.items, shelves, strict=True)
        ]
        wanted = {query: items[found[0].item] for query, found in _relevant(data.labels).items()}
        queries: list[Row] = []
        for row, query in enumerate(data.queries):
            tags = {name: wanted[row][name] for name in ("author", "shelf")} if rng.random() < self.share else {}
            text = " ".join([query["text"], *tags.values()])
            queries.append({**query, "author": None, "shelf": None, **tags, "text": text})
        return replace(data, items=items, queries=queries)


@dataclass(frozen=True)
class EarlierModel:
    """A share of the training queries made the off-the-shelf model, and `left` others are there to fine-tune it."""

    share: float = 0.7
    left: int | None = None
    """None: all others."""

    def __call__(self, data: Data, rng: np.random.Generator) -> Data:
        """The data with a split "earlier"."""
        train = rng.permutation(data.rows("train"))
        cut = int(len(train) * self.share)
        last = len(train) if self.left is None else cut + self.left
        split = dict.fromkeys(train[:cut].tolist(), "earlier") | dict.fromkeys(train[last:].tolist(), "unused")
        return replace(
            data, queries=[{**query, "split": split.get(row, query["split"])} for row, query in enumerate(data.queries)]
        )


@dataclass(frozen=True)
class NarrowDomain:
    """Training and dev queries are of a few kinds. The off-the-shelf model comes from the other kinds, whose dev queries are the
    general set."""

    kinds: tuple[str, ...] = ("author_genre", "franchise")

    def __call__(self, data: Data, rng: np.random.Generator) -> Data:
        """The data with splits "earlier" and "general"."""
        other = {"train": "earlier", "dev": "general"}
        queries = [
            query if query["kind"] in self.kinds else {**query, "split": other.get(query["split"], query["split"])}
            for query in data.queries
        ]
        return replace(data, queries=queries)


@dataclass(frozen=True)
class Written:
    """The tables of a run in its store."""

    store: Store
    corpus: list[Part]
    queries: list[Part]
    earlier: list[Part]
    """The queries table in which "earlier" is the training split."""
    labels: list[Part]


def write_tables(store: Store, data: Data) -> Written:
    """The tables that mining and training read."""
    codes: dict[Any, int] = {}

    def code(value: Any) -> int:
        return codes.setdefault(value, len(codes))

    corpus = [
        {
            **item,
            "row": row,
            "id": f"t{row:05d}",
            "text_code": code(" ".join(item["text"].lower().split())),
            "group_code": -1 if item["group"] is None else code(("group", item["group"])),
        }
        for row, item in enumerate(data.items)
    ]
    asked = [code(" ".join(str(query["text"]).lower().split())) for query in data.queries]
    queries = [
        {**query, "row": row, "id": f"q{row:05d}", "item_row": -1, "text_code": text}
        for row, (query, text) in enumerate(zip(data.queries, asked, strict=True))
    ]
    as_earlier = {"earlier": "train", "dev": "dev"}
    earlier = [{**query, "split": as_earlier.get(str(query["split"]), "unused")} for query in queries]
    labels = [
        {"query_row": query, "item_row": item, "score": score, "gain": float(score), "weight": 1.0, "source": source}
        for query, item, score, source in sorted({(label.query, label.item): label for label in data.labels}.values())
    ]
    named = {"corpus": corpus, "queries": queries, "earlier": earlier, "labels": labels}
    return Written(
        store, **{name: write_parts(store, f"tables/{name}", pa.Table.from_pylist(rows)) for name, rows in named.items()}
    )


def write_parts(store: Store, folder: str, table: pa.Table) -> list[Part]:
    """A table in parts of 4,096 rows."""
    edges = [*range(0, table.num_rows, PART_ROWS), table.num_rows]
    return [
        write_part(store, f"{folder}/{part_name(number)}", table.slice(low, high - low), first_row=low)
        for number, (low, high) in enumerate(pairwise(edges))
    ]
