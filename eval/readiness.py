"""What labelled pairs are good for: collect more, try or train a re-ranker, train the embeddings. Pure, from counts to advice.

The order of the steps, and from how many examples each pays, are those of teams that have reported them; a run's own figures go
before both where there are some.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from eval.diagnosis.case import MIN_QUERIES
from eval.metrics import metric_name

COLLECT, RERANKER = 1_000, 6_000
"""Usable examples below which to collect data, and below which to train a re-ranker only."""
THIN = 1.5
"""Relevant items for each training query below which most are likely to be unlabelled."""
SYNTHETIC_SHARE = 0.2
"""Share of the training labels that generated ones may have."""

Answer = Literal["collect data", "fine-tune the re-ranker", "fine-tune the embeddings"]


@dataclass(frozen=True)
class OffTheShelf:
    """What the run measured of the model that it starts from."""

    primary: str
    figure: float
    attainable: float
    """The primary figure of a perfect model."""
    candidates: int
    """Hits of each query that a re-ranker would read."""
    in_reach: float
    """The primary figure of a perfect order of these hits: no re-ranker gets beyond it."""


@dataclass(frozen=True)
class LabelCounts:
    """What the labels of a data set hold."""

    examples: int
    """Relevant labels of training queries, without generated ones."""
    synthetic: int
    """Generated ones."""
    queries: int
    """Training queries with a relevant item."""
    negatives: int
    """Labels of training queries that judge an item irrelevant."""
    dev: int
    """Dev queries with a relevant item."""
    test: int
    dev_is_cut: bool = False
    """The data has no dev split: a part of the training queries is taken for it."""


@dataclass(frozen=True)
class Advice:
    """What to do first."""

    answer: Answer
    because: tuple[str, ...]
    """The figures that decided, the decisive one first."""
    also: tuple[str, ...]
    """What to try beside it."""
    missing: tuple[str, ...]
    """What the data does not have, and what it would be good for."""


def advise(
    counts: LabelCounts, off_the_shelf: OffTheShelf | None, *, reranker_from: int = COLLECT, embeddings_from: int = RERANKER
) -> Advice:
    """The first step, by the number of usable examples; then what the off-the-shelf figures say of it.

    Args:
        off_the_shelf: None: not measured yet.
        reranker_from, embeddings_from: usable examples from which each is worth training.
    """
    examples = counts.examples
    if examples < reranker_from:
        answer: Answer = "collect data"
        because = [f"{examples:,} usable examples, fewer than the {reranker_from:,} from which a re-ranker is worth training"]
        also = ["Try an off-the-shelf re-ranker meanwhile: it needs no examples, only dev queries to measure it."]
    elif examples < embeddings_from:
        answer = "fine-tune the re-ranker"
        because = [
            f"{examples:,} usable examples: enough for a re-ranker (from {reranker_from:,}), few for the embeddings (from "
            f"{embeddings_from:,})"
        ]
        also = ["`hardmine probe CONFIG` measures whether training the embeddings pays here all the same."]
    else:
        answer = "fine-tune the embeddings"
        because = [f"{examples:,} usable examples, {embeddings_from:,} or more"]
        also = ["Then put a re-ranker behind them: both together usually give most."]
    because += _of_figures(off_the_shelf) if off_the_shelf else []
    return Advice(answer, tuple(because), tuple(also), tuple(_missing(counts, off_the_shelf)))


def _of_figures(figures: OffTheShelf) -> list[str]:
    """How much better order could do, and how much better retrieval."""
    name = metric_name(figures.primary)
    order, retrieval = figures.in_reach - figures.figure, figures.attainable - figures.in_reach
    which = (
        "order is what is missing, which a re-ranker can mend"
        if order > retrieval
        else ("relevant items are not found at all, which only better embeddings mend")
    )
    return [
        f"off the shelf {name} is {figures.figure:.3f}; a perfect order of its first {figures.candidates} results has "
        f"{figures.in_reach:.3f}, a perfect model {figures.attainable:.3f}: {100 * order:.1f} points are a matter of order, "
        f"{100 * retrieval:.1f} of retrieval, so mostly {which}"
    ]


def _missing(counts: LabelCounts, off_the_shelf: OffTheShelf | None) -> list[str]:
    missing = []
    if counts.dev < MIN_QUERIES:
        missing.append(
            f"Dev queries: {counts.dev:,} have a relevant item, fewer than {MIN_QUERIES}; no difference can be told from chance. "
            f"Label more before anything is trained."
        )
    elif counts.dev_is_cut:
        missing.append(
            f"A dev split of its own: {counts.dev:,} of the training queries are held out. Queries of a later time say more."
        )
    if not counts.test:
        missing.append("A test split: dev chooses the model, so its figures flatter it a little.")
    if not counts.negatives:
        missing.append(
            "Judged negatives: nothing is labelled irrelevant. Log what was shown and skipped; a re-ranker learns most from it."
        )
    if counts.queries and counts.examples / counts.queries < THIN:
        missing.append(
            f"Thickness: {counts.examples / counts.queries:.1f} relevant items for each training query. Most are unlabelled, so "
            f"keep mining's margin on."
        )
    every = counts.examples + counts.synthetic
    if every and counts.synthetic > SYNTHETIC_SHARE * every:
        missing.append(
            f"Real labels: {counts.synthetic / every:.0%} of the training labels are generated, more than {SYNTHETIC_SHARE:.0%}."
        )
    if off_the_shelf is None:
        missing.append(
            "Off-the-shelf figures: whether order or retrieval is the problem is not known. "
            "`hardmine evaluate CONFIG --round -1` measures it."
        )
    return missing


def as_json(advice: Advice, counts: LabelCounts, off_the_shelf: OffTheShelf | None) -> Mapping[str, object]:
    """What `hardmine advise --json` prints."""
    return {
        "answer": advice.answer,
        "because": list(advice.because),
        "also": list(advice.also),
        "missing": list(advice.missing),
        "counts": vars(counts),
        "off_the_shelf": vars(off_the_shelf) if off_the_shelf else None,
    }
