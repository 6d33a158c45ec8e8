"""Users with a known taste, and the UBI log that they leave: PBM or cascade clicks, noise, bots, reformulations, popular items.

Words of a query and its relevant items are real words, so that a model can be trained on the labels.
Q query texts, C candidates of a query, N queries in the log, K results shown.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
K = 10
CANDIDATES = 40
RELEVANT = 10
POPULAR = 8
"""Items that the engine shows for anything, and that are clicked for being known."""
ATTRACTION = np.array([0.04, 0.25, 0.5, 0.8])
"""Chance that somebody who looks at a result of this grade clicks it."""
START = 1_767_225_600_000
"""2026-01-01 in milliseconds."""
DAYS = 60
SHAPES = [
    "red",
    "blue",
    "green",
    "black",
    "white",
    "grey",
    "small",
    "large",
    "wooden",
    "leather",
    "cotton",
    "steel",
    "light",
    "warm",
    "soft",
    "round",
]
THINGS = [
    "shoe",
    "shirt",
    "jacket",
    "table",
    "chair",
    "lamp",
    "kettle",
    "bottle",
    "backpack",
    "watch",
    "phone",
    "camera",
    "guitar",
    "bicycle",
    "tent",
    "knife",
    "rug",
    "mirror",
]
FEATURES = ["waterproof", "folding", "kids", "running", "travel", "office", "vintage", "wireless", "garden", "winter"]


@dataclass(frozen=True)
class Truth:
    """What the users think."""

    texts: list[str]
    items: list[dict[str, Any]]
    candidates: I64
    grades: I64
    popular: npt.NDArray[np.bool_]
    words: I64
    """[N, 3] shape, feature and thing of each item."""
    asked: I64
    """[Q, 3] those of each text."""

    def wants(self, text: int) -> tuple[I64, I64]:
        """(items of the whole catalogue that answer a text, their grades)."""
        grades = _grades(self.words, self.asked[text])
        items = np.flatnonzero(grades > 0)
        return items, grades[items]

    def grade(self) -> dict[tuple[str, str], int]:
        """(text, item id) -> grade, of all candidates; what is no candidate is irrelevant."""
        return {
            (text, self.items[item]["id"]): int(grade)
            for text, items, grades in zip(self.texts, self.candidates, self.grades, strict=True)
            for item, grade in zip(items.tolist(), grades.tolist(), strict=True)
        }


def make_truth(queries: int, items: int, seed: int) -> Truth:
    """Items are shapes, features and things. Grade 3: all words of the query, 2: thing and shape, 1: thing and feature."""
    random = np.random.default_rng(seed)
    parts = np.stack([random.integers(0, len(words), items) for words in (SHAPES, FEATURES, THINGS)], 1)
    catalogue = [
        {"id": f"i{n}", "title": f"{SHAPES[a]} {THINGS[c]} {n}", "text": f"{SHAPES[a]} {FEATURES[b]} {THINGS[c]}, model {n}",
         "feature": FEATURES[b], "thing": THINGS[c]}
        for n, (a, b, c) in enumerate(parts.tolist())
    ]  # fmt: skip
    every = [(a, b, c) for c in range(len(THINGS)) for b in range(len(FEATURES)) for a in range(len(SHAPES))]
    chosen = [every[n] for n in random.permutation(len(every))[:queries]]
    texts = [f"{SHAPES[a]} {FEATURES[b]} {THINGS[c]}" for a, b, c in chosen]
    popular = random.permutation(items)[:POPULAR]
    candidates, grades = [], []
    for wanted in chosen:
        grade = _grades(parts, np.asarray(wanted))
        order = np.lexsort((random.random(items), -grade))
        relevant = order[: min(RELEVANT, int((grade > 0).sum()))]
        others = random.permutation(np.flatnonzero(grade == 0))[: CANDIDATES - len(relevant)]
        mixed = np.concatenate([relevant, others])
        mixed[-4:] = random.permutation(popular)[:4]
        candidates.append(mixed)
        grades.append(np.maximum(0, grade[mixed]))
    return Truth(texts, catalogue, np.asarray(candidates), np.asarray(grades), np.isin(np.arange(items), popular), parts,
                 np.asarray(chosen))  # fmt: skip


def _grades(parts: I64, wanted: I64) -> I64:
    """[N] what each item is for these words: 3 to 0, or -1: another thing."""
    same = parts == wanted
    return np.where(same[:, 2], np.select([same.all(1), same[:, 0], same[:, 1]], [3, 2, 1], 0), -1)


@dataclass(frozen=True)
class Log:
    """A simulated log, as arrays."""

    text: I64
    typed: dict[int, str]
    """Row -> what was typed instead of the text."""
    client: I64
    time: I64
    shown: I64
    clicked: npt.NDArray[np.bool_]
    dwell: npt.NDArray[np.float64]


def make_log(truth: Truth, number: int, *, model: str, seed: int) -> Log:
    """N queries. Most users click by `model` ("pbm" or "cascade"); one in 50 clients is a bot that clicks everything it likes."""
    random = np.random.default_rng(seed)
    queries = len(truth.texts)
    share = 1.0 / np.arange(1, queries + 1) ** 0.8
    text = random.choice(queries, number, p=share / share.sum())
    clients = max(50, number // 8)
    bots = max(1, clients // 2000)
    client = random.integers(bots, clients, number)
    bot = random.random(number) < 0.05
    client[bot] = random.integers(0, bots, bot.sum())
    time = np.sort(START + random.integers(0, DAYS * 86_400_000, number))
    time[bot] = START + (random.random(bot.sum()) * 3 * 86_400_000).astype(np.int64)
    # the engine: right on average, fond of popular items, and a little different every time
    popular = truth.popular[truth.candidates]
    base = 0.5 * truth.grades + 1.0 * popular + random.normal(0, 0.7, truth.grades.shape)
    score = base[text] + random.normal(0, 0.6, (number, CANDIDATES))
    order = np.argsort(-score, axis=1)[:, :K]
    shown = np.take_along_axis(truth.candidates[text], order, 1)
    grade = np.take_along_axis(truth.grades[text], order, 1)
    attraction = np.minimum(0.95, ATTRACTION[grade] + 0.25 * truth.popular[shown])
    clicked = _clicks(attraction, grade, model, random) | (random.random(shown.shape) < 0.01)
    clicked[bot] = random.random((bot.sum(), K)) < 0.5
    dwell = np.where(grade > 0, random.exponential(60, shown.shape), random.exponential(6, shown.shape)).round(1)
    typed: dict[int, str] = {}
    wrong = np.flatnonzero((random.random(number) < 0.03) & ~bot)
    for row in wrong.tolist():
        letters = truth.texts[text[row]]
        at = int(random.integers(1, len(letters) - 2))
        typed[row] = letters[:at] + letters[at + 1 :]
    return Log(text, typed, client, time, shown, clicked, dwell)


def _clicks(attraction: Any, grade: Any, model: str, random: np.random.Generator) -> npt.NDArray[np.bool_]:
    chance = random.random(attraction.shape)
    if model == "pbm":
        examined = random.random(attraction.shape) < 1.0 / np.arange(1, K + 1)
        seen: npt.NDArray[np.bool_] = examined & (chance < attraction)
        return seen
    clicked = np.zeros(attraction.shape, bool)
    going = np.ones(len(attraction), bool)
    for k in range(K):
        clicked[:, k] = going & (chance[:, k] < attraction[:, k])
        leaves = np.where(clicked[:, k], 0.3 + 0.2 * grade[:, k], 0.12)
        going &= random.random(len(attraction)) >= leaves
    return clicked


def write_ubi(
    truth: Truth, log: Log, folder: Path, *, files: int = 1, failed: float = 0.02, seed: int = 1, prefix: str = ""
) -> int:
    """Write queries-*.jsonl and events-*.jsonl; returns the lines. A share `failed` is asked wrongly first, without a click."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    lines = 0
    ids = [item["id"] for item in truth.items]
    for file, rows in enumerate(np.array_split(np.arange(len(log.text)), files)):
        queries, events = [], []
        for row in rows.tolist():
            text = log.typed.get(row, truth.texts[log.text[row]])
            shown = [ids[item] for item in log.shown[row]]
            client, time = f"user-{log.client[row]}", int(log.time[row])
            if random.random() < failed:
                bad = [ids[item] for item in random.integers(0, len(ids), K)]
                queries.append(_query(f"{prefix}f{row}", client, f"cheap {text.split()[-1]}", time - 12_000, bad))
            queries.append(_query(f"{prefix}q{row}", client, text, time, shown))
            for k in np.flatnonzero(log.clicked[row]).tolist():
                events.append(_event(f"{prefix}q{row}", client, shown[k], k + 1, time + 2000 * (k + 1), float(log.dwell[row, k])))
        (folder / f"{prefix}queries-{file:03d}.jsonl").write_text("".join(queries))
        (folder / f"{prefix}events-{file:03d}.jsonl").write_text("".join(events))
        lines += len(queries) + len(events)
    return lines


def _query(query: str, client: str, text: str, time: int, shown: list[str]) -> str:
    return json.dumps(
        {"query_id": query, "client_id": client, "user_query": text, "timestamp": time, "query_response_hit_ids": shown}
    ) + "\n"  # fmt: skip


def _event(query: str, client: str, item: str, position: int, time: int, dwell: float) -> str:
    attributes = {"object": {"object_id": item}, "position": {"ordinal": position}, "dwell_time": dwell}
    line = {"query_id": query, "client_id": client, "action_name": "click", "timestamp": time, "event_attributes": attributes}
    return json.dumps(line) + "\n"
