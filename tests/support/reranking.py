"""A small run with a re-ranker, and the table of retrievers and re-rankers of a made-up one, as the stage leaves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ITEMS, QUERIES, DEV, HITS = 30, 28, 14, 12
WORDS = ("red", "blue", "old", "new", "cat", "dog", "sea")
MEANS = {
    ("off-the-shelf", "none"): 0.60,
    ("off-the-shelf", "off-the-shelf"): 0.55,
    ("off-the-shelf", "fine-tuned"): 0.70,
    ("fine-tuned", "none"): 0.68,
    ("fine-tuned", "off-the-shelf"): 0.57,
    ("fine-tuned", "fine-tuned"): 0.75,
}
SENTENCE = "Ship the fine-tuned retriever with the fine-tuned re-ranker: Recall@3 0.680 → 0.750."


def _change(mean: float) -> dict[str, Any]:
    ends = {"mean": mean, "low": mean - 0.03, "high": mean + 0.03, "queries": 400}
    return ends | {"p": 0.0004, "p_adjusted": 0.002, "significant": abs(mean) > 0.03}


def reranking_table() -> dict[str, Any]:
    """Everything below "reranking" of its figures, with the split."""
    cells = [
        {
            "retriever": retriever,
            "reranker": reranker,
            "metrics": {"recall@3": mean, "recall@10": mean + 0.1, "ndcg@10": mean, "mrr@10": mean, "bad_top1": 1 - mean},
            "against_reference": {} if mean == 0.68 else {"recall@3": _change(mean - 0.68), "ndcg@10": _change(mean - 0.68)},
            "tied_at_the_top": None if reranker == "none" else 3,
        }
        for (retriever, reranker), mean in MEANS.items()
    ]
    best = {"retriever": "fine-tuned", "reranker": "fine-tuned"}
    group = {"queries": 40, "metrics": {"recall@3": 0.7}, "against_baseline": _change(0.1)}
    return {
        "primary": "recall@3",
        "candidates": 100,
        "queries": 400,
        "split": "dev",
        "reference": {"retriever": "fine-tuned", "reranker": "none"},
        "pair": best,
        "ship": best,
        "sentence": SENTENCE,
        "cells": cells,
        "depths": {"10": 0.70, "20": 0.73, "50": 0.745, "100": 0.75},
        "speed": {
            "p50_ms": {"10": 12.5, "20": 24.0, "50": 60.0, "100": 1200.0},
            "p95_ms": {"10": 15.0, "20": 30.0, "50": 80.0, "100": 1500.0},
            "queries": 60,
            "where": "2 CPU threads",
        },
        "slices": {"genres": {"slices": [group | {"value": "crime"}, group | {"value": "war"}], "left_out": 0}},
    }


def with_reranker(case: Any, model: Path) -> None:
    """A case whose items are seven words in many combinations; the last half of the queries are dev."""
    case.items = [
        {"id": f"i{n}", "text": f"{WORDS[n % 7]} {WORDS[n // 7]} {WORDS[(3 * n) % 5]} {n}", "kind": WORDS[n % 2]}
        for n in range(ITEMS)
    ]
    case.queries = [
        {"id": f"q{n}", "text": f"{WORDS[n % 7]} {WORDS[n // 7]}", "split": "train" if n < QUERIES - DEV else "dev"}
        for n in range(QUERIES)
    ]
    case.labels = [{"query_id": f"q{n}", "item_id": f"i{n}", "score": 2} for n in range(QUERIES)]
    case.labels += [{"query_id": f"q{n}", "item_id": f"i{(n + 1) % ITEMS}", "score": 1} for n in range(QUERIES)]
    case.set("mining", {"num_hits": 16, "num_negatives": 4, "relative_margin": "off"})
    case.set("training", {"hard_negatives": 2, "batch_size": 4})
    case.set("evaluation", {"num_hits": HITS, "resamples": 500, "slices": ["kind"], "min_slice_queries": 5})
    case.set("reranker", {"model": str(model), "max_length": 64, "batch_size": 4})
