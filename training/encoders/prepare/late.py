"""The model of late interaction that a re-ranker's training starts from: one as it is, or a body with a new projection."""

from __future__ import annotations

import math
import string
from pathlib import Path
from typing import Any

import numpy as np

from cluster.errors import ConfigError, one_paragraph
from training.encoders.prepare.reranker import length_of, refuse_untrainable
from training.encoders.rerankers.late_encoder import LateEncoder, LateTokenizer, is_late, open_late

VECTOR = 128
"""Length of a token's vector with a new projection, as ColBERT has it."""
TRIAL = (["a query", "red"], ["an item, red", "a longer item: with more words, and more signs!"])
NEAR = 1e-3
"""How far a score may be from sentence-transformers', for a query of few words."""


def prepare_late(source: Path, target: Path, *, max_length: int | None = None, seed: int = 0) -> bool:
    """The model in `source` as one of late interaction in `target`, which sentence-transformers' MultiVectorEncoder opens.

    One of late interaction is copied; any other transformer gets a projection of random weights. Of its items punctuation does
    not count, and its queries are not filled up.

    Args:
        max_length: tokens of a text; None: as the model says, of a new one as `prepare_reranker`.
        seed: of the projection's weights.

    Returns:
        Whether it has a new projection, which cannot rank before it is trained.

    Raises:
        ConfigError: it is no model of transformers, has code of its own, or reads no texts of `max_length` tokens.
    """
    root, late = refuse_untrainable(source), is_late(source)
    length = length_of(root, source, max_length)
    try:
        model = open_late(source) if late else _new(root, length, seed)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ConfigError(
            f"reranker.model: sentence-transformers cannot make a model of late interaction of {source} "
            f"({one_paragraph(str(error))[:300]}); give another one"
        ) from error
    if late and max_length is not None:
        model[0].document_length = max_length
    model.save(str(target), create_model_card=False)
    _try(target, model)
    return not late


def _new(root: Path, length: int, seed: int) -> Any:
    import torch
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.base.modules.dense import Dense
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    from training.encoders.transformer import quiet

    quiet()
    local = {"local_files_only": True}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = Transformer(
            str(root),
            query_length=length,
            document_length=length,
            model_kwargs=local | {"dtype": torch.float32},
            processor_kwargs=local,
            config_kwargs=local,
        )
        tokens = {"module_input_name": "token_embeddings"}
        projection = Dense(body.get_embedding_dimension(), VECTOR, bias=False, activation_function=torch.nn.Identity(), **tokens)
    known = body.tokenizer.get_vocab()
    mask = MultiVectorMask(skiplist_words=[sign for sign in string.punctuation if sign in known])
    return MultiVectorEncoder(modules=[body, projection, mask, Normalize(**tokens)], device="cpu")


def _try(target: Path, model: Any) -> None:
    """Raises ConfigError: a score is not finite, or another one than sentence-transformers gives with `model`, as it came."""
    encoder, rows = LateEncoder.load(target), np.arange(len(TRIAL[0]))
    tokenizer = LateTokenizer(encoder.model)
    pairs = tokenizer.template.join(tokenizer.queries(TRIAL[0]), tokenizer(TRIAL[1]), rows, rows)
    got = encoder.encode(pairs)[:, 0]
    want = model.similarity_pairwise(model.encode_query(TRIAL[0]), model.encode_document(TRIAL[1])).numpy()
    if not all(map(math.isfinite, got)):
        raise ConfigError(
            f"reranker.model gives {got[0]} for a pair of short texts; its weights are damaged: download it again, or give "
            f"another"
        )
    if not np.allclose(got, want, atol=NEAR):
        raise ConfigError(
            f"reranker.model: hardmine reads a pair as {got[0]:.4f}, sentence-transformers as {want[0]:.4f}; this kind of late "
            f"interaction is not supported: give another model"
        )
