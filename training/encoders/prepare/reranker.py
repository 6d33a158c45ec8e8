"""The model that a re-ranker's training starts from, as one folder: a cross-encoder as it is, or a body with a new head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster.errors import ConfigError, one_paragraph
from training.encoders import st_format
from training.encoders.cross_encoder import describe
from training.encoders.prepare.check import read_modules, refuse_own_code
from training.encoders.rerankers.late_encoder import is_late
from training.encoders.st_format import read_json, write_json
from training.encoders.tokens.lengths import model_limit, position_limit
from training.encoders.tokens.pairs import PairTokenizer

USUAL_LENGTH = 512
"""Tokens of a pair where neither the settings nor the model ask for fewer: most of what a longer text adds is cost."""


def prepare_reranker(source: Path, target: Path, *, max_length: int | None = None, seed: int = 0) -> bool:
    """The model in `source` as a cross-encoder of one score in `target`, which sentence-transformers' CrossEncoder reads as well.

    A cross-encoder (ForSequenceClassification with one label) is copied; any other transformer gets a head of random weights.

    Args:
        max_length: tokens of a pair; None: USUAL_LENGTH, or what the model reads if that is less.
        seed: of the head's weights.

    Returns:
        Whether it has a new head, which cannot rank before it is trained.

    Raises:
        ConfigError: it is no model of transformers, has code of its own, or reads no pairs of `max_length` tokens.
    """
    root, modules = refuse_untrainable(source), read_modules(source)
    if is_late(source):
        raise ConfigError(
            f"reranker.model: expected a cross-encoder or a body for one, found a model of late interaction in {source}; set "
            f'reranker.kind = "late_interaction", or give another model'
        )
    if modules and (modules[0].kind != "Transformer" or modules[-1].kind in ("Dense", "LogitScore")):
        raise ConfigError(
            f"reranker.model: expected a transformer, found the modules {', '.join(module.kind for module in modules)} in "
            f"{source}, which hardmine can ask (as mining.teacher) but not train; give a model that ends in "
            f"ForSequenceClassification, or an embedding model"
        )
    length = length_of(root, source, max_length)
    architecture, kinds = describe(source)
    whole = architecture.endswith("ForSequenceClassification") and "Pooling" not in kinds
    if whole and st_format.default_prompt(source):
        raise ConfigError(
            f"reranker.model: the cross-encoder in {source} puts a prompt before its pairs (default_prompt_name in "
            f"config_sentence_transformers.json), which hardmine does not train with; give another one"
        )
    model = _load(root, source, seed, new_head=not whole)
    if model.config.num_labels != 1:
        raise ConfigError(
            f"reranker.model: expected a model with one score for a pair, found a classifier of {model.config.num_labels} "
            f"classes in {source}; give one that was trained to rank, or an embedding model"
        )
    _write(model, root, target, length, own=whole)
    _try(target)
    return not whole


def refuse_untrainable(source: Path) -> Path:
    """Where the first module of the model in `source` lies. Raises ConfigError: it has code of its own, or is an adapter."""
    modules = read_modules(source)
    root = source / (modules[0].path if modules else "")
    for folder in dict.fromkeys((source, root)):
        refuse_own_code(folder, source)
        if (folder / "adapter_config.json").exists():
            raise ConfigError(
                f"reranker.model: expected a whole model, found an adapter of peft in {source}; merge it into its model with "
                f"merge_and_unload(), save the result, and give that folder"
            )
    return root


def length_of(root: Path, source: Path, max_length: int | None) -> int:
    """Tokens that are read at once. Raises ConfigError: more than there are positions for."""
    positions = position_limit(root)
    if max_length is not None:
        if positions is not None and max_length > positions:
            raise ConfigError(
                f"reranker.max_length = {max_length} is more than the {positions} tokens that the model in {source} has "
                f"positions for; set it to {positions} or less"
            )
        return max_length
    # of an embedding model, its own limit is that of one text: only positions count
    return min(USUAL_LENGTH, positions or model_limit(root))


def _load(root: Path, source: Path, seed: int, *, new_head: bool) -> Any:
    import torch
    from transformers import AutoModelForSequenceClassification

    from training.encoders.transformer import quiet

    quiet()
    options: dict[str, Any] = {"num_labels": 1} if new_head else {}
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return AutoModelForSequenceClassification.from_pretrained(str(root), dtype=torch.float32, **options)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ConfigError(
            f"reranker.model: transformers cannot read pairs with the model in {source} ({one_paragraph(str(error))[:300]}); "
            f"give a cross-encoder, or an embedding model of another family"
        ) from error


def _write(model: Any, root: Path, target: Path, length: int, *, own: bool) -> None:
    """The model with its tokenizer, which is told the length: so that everyone who opens the folder cuts pairs alike."""
    from transformers import AutoTokenizer

    from training.encoders.prepare.check import first_config
    from training.encoders.rerankers.pair_encoder import SIGMOID, activation_of, set_activation

    tokenizer = AutoTokenizer.from_pretrained(str(root))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    tokenizer.model_max_length = length
    if model.config.get_text_config().pad_token_id is None:  # a decoder looks for the last token that is not this one
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    activation = activation_of(root) if own else None
    model.save_pretrained(str(target))
    tokenizer.save_pretrained(str(target))
    if first_config(root).get("do_lower_case"):
        write_json(target / "sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": True})
    config = read_json(target / "config.json")
    config.pop("torch_dtype", None)
    write_json(target / "config.json", config | {"dtype": "float32"})
    name = SIGMOID if activation is None else f"{type(activation).__module__}.{type(activation).__name__}"
    set_activation(target, name)


def _try(target: Path) -> None:
    """Let the model read a pair. Raises ConfigError: its score is not finite, or its tokenizer joins pairs in another way."""
    import math

    import numpy as np

    from training.encoders.rerankers.pair_encoder import PairEncoder

    tokenizer, rows = PairTokenizer(target), np.zeros(1, np.int64)
    pair = tokenizer.template.join(tokenizer(["a query"]), tokenizer(["an item"]), rows, rows)
    score = float(PairEncoder.load(target).encode(pair)[0, 0])
    if not math.isfinite(score):
        raise ConfigError(
            f"reranker.model gives {score} for a pair of short texts; its weights are damaged: download it again, or give another"
        )
