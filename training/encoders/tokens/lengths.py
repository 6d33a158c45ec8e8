"""How many tokens a model reads: what its positions allow, and what its own settings ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.encoders.prepare.check import first_config
from training.encoders.st_format import read_json

UNLIMITED = 512
"""Tokens that a model reads where neither its positions, nor its tokenizer, nor its own settings name a limit (T5)."""
POSITION_TABLES = ("position", "wpe")
"""What the names of learned positions contain: position_embeddings, embed_positions, GPT-2's wpe."""


def model_limit(root: Path) -> int:
    """Most tokens of a text for the model at `root`: its own setting, else its tokenizer's; never more than its positions."""
    own = first_config(root).get("max_seq_length")
    positions = position_limit(root)
    if own:
        return int(min(own, positions or own))
    tokenizer = root / "tokenizer_config.json"
    named = read_json(tokenizer).get("model_max_length") if tokenizer.exists() else None
    limits = [int(limit) for limit in (positions, named) if limit and limit < 1e6]  # "no limit" is written as 1e30
    return min(limits, default=UNLIMITED)


def position_limit(root: Path) -> int | None:
    """Most tokens that the model at `root` has positions for; None: any number.

    Its configuration promises too many for RoBERTa and its relatives, whose first positions stand for padding
    (huggingface/transformers#14243), so the table itself is looked at; the weights are not read.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(str(root))
    named = getattr(config.get_text_config(), "max_position_embeddings", None)
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    limits = [_usable(module) for name, module in model.named_modules() if _is_position_table(name, module)]
    if isinstance(named, int) and named > 0:  # XLNet's is -1
        limits.append(named)
    return min(limits, default=None)


def _is_position_table(name: str, module: Any) -> bool:
    from torch import nn

    last = name.rsplit(".", 1)[-1]
    return isinstance(module, nn.Embedding) and any(part in last for part in POSITION_TABLES) and module.num_embeddings > 1


def _usable(table: Any) -> int:
    first = 0 if table.padding_idx is None else table.padding_idx + 1
    return int(table.num_embeddings) - first
