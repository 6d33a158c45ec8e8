"""Labels of `pairs` against what the simulated users think: precision, recall, rank correlation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy.stats import kendalltau

from benchmarks.flywheel.simulate import Log, Truth

Labels = Mapping[tuple[str, str], float]
"""(text, item) -> positive: relevant, the larger the more so; negative or 0: judged irrelevant, the smaller the surer."""


@dataclass(frozen=True)
class Agreement:
    """How labels agree with the truth."""

    relevant: int
    precision: float
    """Share of the relevant labels whose item is truly relevant."""
    recall: float
    """Share of the truly relevant pairs that were shown and are labelled relevant."""
    irrelevant: int
    irrelevant_precision: float
    """Share of the labels "judged irrelevant" whose item is truly irrelevant."""
    tau: float
    """Kendall's tau-b between labels and true grades, mean over the queries with three labels or more."""


def read_pairs(folder: Path) -> dict[tuple[str, str], float]:
    """The labels of the live queries of an output."""
    queries = pq.read_table(folder / "tables" / "queries")
    text = dict(zip(queries["id"].to_pylist(), queries["text"].to_pylist(), strict=True))
    labels = pq.read_table(folder / "tables" / "qrels")
    columns = (labels[name].to_pylist() for name in ("query_id", "item_id", "score", "weight"))
    return {
        (text[query], item): (score * weight if score else -weight) for query, item, score, weight in zip(*columns, strict=True)
    }


def raw_clicks(truth: Truth, log: Log) -> dict[tuple[str, str], float]:
    """What many teams do: whatever was clicked is relevant, by how often; what was shown and never clicked is not."""
    clicks: dict[tuple[str, str], float] = defaultdict(float)
    for row, text in enumerate(log.text.tolist()):
        name = log.typed.get(row, truth.texts[text])
        for item, clicked in zip(log.shown[row].tolist(), log.clicked[row].tolist(), strict=True):
            clicks[name, truth.items[item]["id"]] += clicked
    return clicks


def agreement(labels: Labels, truth: Truth, log: Log) -> Agreement:
    """Labels against the truth, over the real texts."""
    grades = truth.grade()
    known = set(truth.texts)
    own = {pair: value for pair, value in labels.items() if pair[0] in known}
    good = [pair for pair, value in own.items() if value > 0]
    bad = [pair for pair, value in own.items() if value <= 0]
    shown = {
        (truth.texts[text], truth.items[item]["id"])
        for text, items in zip(log.text.tolist(), log.shown.tolist(), strict=True)
        for item in items
    }
    relevant = {pair for pair in shown if grades.get(pair, 0) > 0}
    taus = []
    of_query: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for pair, value in own.items():
        of_query[pair[0]].append((value, grades.get(pair, 0)))
    for pairs in of_query.values():
        values, wanted = zip(*pairs, strict=True)
        if len(pairs) >= 3 and len(set(wanted)) > 1:
            tau = kendalltau(values, wanted).statistic
            taus.append(0.0 if np.isnan(tau) else float(tau))

    def share(pairs: list[tuple[str, str]], wanted: bool) -> float:
        return sum((grades.get(pair, 0) > 0) == wanted for pair in pairs) / max(1, len(pairs))

    return Agreement(
        len(good),
        share(good, True),
        len(relevant.intersection(good)) / max(1, len(relevant)),
        len(bad),
        share(bad, False),
        float(np.mean(taus)) if taus else 0.0,
    )
