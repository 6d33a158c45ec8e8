"""A query as the vector that an export's model makes of it.

A model of texts reads the query's text behind its prompt. An adapter on the data's own vectors reads a vector of the model that
made these, as a JSON list of numbers. A sequence encoder reads a history: item ids, oldest first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from cluster.errors import DataError
from cluster.tables.tables import F32, lists_to_csr
from jobs.record.usage import Reads

if TYPE_CHECKING:
    from training.encoders.tokens.features import Tokens

Encode = Callable[[Sequence[str]], F32]
"""Queries as a person gives them -> float32 [Q, D] of unit length."""


def query_encoder(folder: Path | None, reads: Reads, dimension: int) -> Encode:
    """What encodes queries.

    Args:
        folder: of the model; None: the data's own vectors are the embeddings.
    """
    if folder is None:
        return lambda queries: _unit(_vectors(queries, dimension))
    return {"texts": _texts, "vectors": _adapted, "histories": _histories}[reads](folder)


def item_encoder(folder: Path) -> Encode:
    """What encodes texts of items, behind their own prompt, of a model of texts."""
    return _texts(folder, of_items=True)


def _texts(folder: Path, *, of_items: bool = False) -> Encode:
    from training.encoders.load import load_encoder

    tokens_of, encoder = tokens_of_texts(folder, of_items=of_items), load_encoder(folder)
    return lambda texts: encoder.encode(tokens_of(texts))


def tokens_of_texts(folder: Path, *, of_items: bool = False) -> Callable[[Sequence[str]], Tokens]:
    """What makes texts into tokens behind their prompt, as the model in `folder` reads them."""
    from training.encoders.st_format import read_json
    from training.encoders.tokens.features import Tokens
    from training.encoders.tokens.tokenizer import Tokenizer, read_prompts
    from training.settings import EncoderSettings

    static = read_json(folder / "modules.json")[0]["type"].endswith(".StaticEmbedding")
    settings = EncoderSettings(kind="static" if static else "transformer", model=str(folder))
    prompts, tokenizer = read_prompts(folder, settings), Tokenizer(folder, settings)
    prompt = prompts.item if of_items else prompts.query

    def tokens_of(texts: Sequence[str]) -> Tokens:
        blank = [number for number, text in enumerate(texts, start=1) if not text.strip()]
        if blank and not of_items:
            raise DataError(f"expected a text as query {blank[0]}, found an empty one; give some words")
        offsets, values = lists_to_csr(pa.chunked_array([tokenizer(list(texts), prompt)]))
        return Tokens(offsets, values.astype(np.int32, copy=False))

    return tokens_of


def _adapted(folder: Path) -> Encode:
    """An adapter on the data's own vectors: a sentence-transformers folder that starts at a vector."""
    import torch

    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else deepspeed, where accelerate imports it, looks for one and says so
    from sentence_transformers import SentenceTransformer

    model: Any = SentenceTransformer(str(folder), device="cpu", local_files_only=True).eval()
    size = int(model[1].linear.in_features)

    def encode(queries: Sequence[str]) -> F32:
        with torch.inference_mode():
            output = model({"sentence_embedding": torch.from_numpy(_vectors(queries, size))})["sentence_embedding"]
        values: F32 = output.float().numpy()
        return values

    return encode


def _histories(folder: Path) -> Encode:
    from training.encoders.load import load_encoder
    from training.encoders.sequence import SequenceEncoder

    encoder = load_encoder(folder)
    assert isinstance(encoder, SequenceEncoder)
    return lambda queries: encoder.encode(encoder.read([_ids(query) for query in queries]))


def _ids(query: str) -> list[str]:
    """A history: a JSON list of item ids, or ids with commas between."""
    if query.lstrip().startswith("["):
        return [str(name) for name in _json(query)]
    return [name.strip() for name in query.split(",") if name.strip()]


def _vectors(queries: Sequence[str], dimension: int) -> F32:
    rows = []
    for query in queries:
        row: Any = _json(query) if query.lstrip().startswith("[") else None
        whole = isinstance(row, list) and len(row) == dimension and all(type(value) in (int, float) for value in row)
        if not whole or not np.isfinite(row).all() or not np.any(row):
            raise DataError(
                f"the model of this export reads vectors: expected a JSON list of {dimension} numbers, not all 0, found "
                f"{query[:40]!r}; make it with the model that made the vectors of the data"
            )
        rows.append(row)
    return np.array(rows, np.float32)


def _json(query: str) -> Any:
    try:
        return json.loads(query)
    except ValueError as error:
        raise DataError(f"expected a JSON list as the query, found {query[:40]!r} ({error})") from error


def _unit(vectors: F32) -> F32:
    unit: F32 = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def describe_query(reads: Reads) -> str:
    """How a query is given, for a person."""
    return {
        "texts": "a text",
        "vectors": "a vector of the model that made the data's vectors, as a JSON list of numbers",
        "histories": "a history: item ids, oldest first, with commas between",
    }[reads]
