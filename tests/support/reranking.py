"""The table of retrievers and re-rankers of a made-up run, as the stage that measures it leaves it."""

from __future__ import annotations

from typing import Any

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
