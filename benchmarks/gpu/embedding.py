"""Embedding on the device: its share of the matrix rate, against sentence-transformers, and with too little memory."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.device import matrix_rate, seconds_of
from benchmarks.gpu.models import SIZES, TINY, catalogue, random_tokens, write_model
from benchmarks.shared.command import Row, compared
from benchmarks.shared.inputs import temporary_folder
from benchmarks.shared.texts import corpus_texts
from training.encoders.load import load_encoder


def case_embedding(device: torch.device, *, quick: bool) -> list[Row]:
    """Random tokens through models of two sizes, in bfloat16."""
    rows = []
    with temporary_folder() as folder:
        for size in [TINY] if quick else list(SIZES.values()):
            encoder = load_encoder(write_model(folder, size)).to(device)
            tokens = random_tokens(500 if quick else 100_000 if size.layers < 12 else 30_000)
            floor = size.operations(tokens) / matrix_rate(device, torch.bfloat16)
            took = seconds_of(lambda e=encoder, t=tokens: e.encode(t, bfloat16=True), device, runs=2)
            row = compared(f"embedding {size.name}", took, floor_s=floor)
            rows.append(row | {"texts_per_s": len(tokens) / took, "tokens_per_s": len(tokens.values) / took})
            rows += _against_peer(folder, size.name, encoder, device, quick=quick)
        rows.append(_short_of_memory(encoder, device, quick=quick))
    return rows


def _against_peer(folder: Path, name: str, encoder: Any, device: torch.device, *, quick: bool) -> list[Row]:
    """The demo's texts, tokenising included on both sides."""
    if importlib.util.find_spec("sentence_transformers") is None:
        return []
    from sentence_transformers import SentenceTransformer

    from benchmarks.embedding.bench import Bench

    texts = corpus_texts(catalogue(folder))[1] * (1 if quick else 20)
    bench = Bench(folder / name, texts)
    peer = SentenceTransformer(str(folder / name), device=str(device), model_kwargs={"dtype": torch.bfloat16})
    ours = seconds_of(lambda: encoder.encode(bench.tokenise(texts), bfloat16=True), device, runs=2)
    theirs = {
        size: seconds_of(lambda b=size: peer.encode(texts, batch_size=b, show_progress_bar=False), device, runs=1)
        for size in (32, 256)
    }
    return [compared(f"embedding texts {name}", ours, f"SentenceTransformer batch {size}", took) for size, took in theirs.items()]


def _short_of_memory(encoder: Any, device: torch.device, *, quick: bool) -> Row:
    """A budget of tokens that no memory holds is halved until it fits; the vectors stay."""
    tokens = random_tokens(200 if quick else 200_000, seed=1)
    whole = encoder.encode(tokens, budget_tokens=2**40, bfloat16=True)
    usual = encoder.encode(tokens, bfloat16=True)
    lowest = float(np.sum(whole * usual, axis=1).min())
    return {"case": "out of memory: packs are halved", "passed": lowest > 0.999, "lowest_cosine": lowest}
