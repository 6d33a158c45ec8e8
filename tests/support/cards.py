"""What a model card of a made-up run says."""

from __future__ import annotations

from typing import Any

from jobs.stages.finish.model_card import CardText, SplitFigures

CHANGE = {"recall@3": {"mean": 0.1234, "low": 0.1, "high": 0.15}}


def card(**values: Any) -> CardText:
    """A card; values: what is different."""
    figures = {"hit@1": 0.1, "recall@3": 0.5678, "ndcg@10": None}
    usual: dict[str, Any] = {
        "name": "shop",
        "version": "1.2.3",
        "reads": "texts",
        "dimension": 32,
        "label": "round 2",
        "encoder": "transformer",
        "base": "`a-folder` (content c0ffee)",
        "hub_name": None,
        "licence": {"license": "apache-2.0"},
        "query_text": "{text}",
        "item_text": "{title} | {text}",
        "data": {"corpus:all": {"corpus.parquet": "c0ffee"}, "general": {"corpus:all": {"other.parquet": "beef"}}},
        "settings": "5e77",
        "primary": "recall@3",
        "confidence": 0.95,
        "figures": [SplitFigures("dev", 1234, figures, {"hit@1": 0.2, "recall@3": 0.4444, "ndcg@10": None}, CHANGE)],
        "rounds": [("warm-up", "random", 40, 0.5), ("round 1", "mined", 41, None)],
    }
    return CardText(**(usual | values))
