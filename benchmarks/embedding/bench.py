"""The model on both sides, the texts, the floor: what the cases of `benchmarks.embedding` share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.shared.command import Row, compared
from benchmarks.shared.machine import paired, timed
from cluster.tables.tables import F32, lists_to_csr
from training.encoders.compute.packed import pack_linears
from training.encoders.load import load_encoder
from training.encoders.tokens.features import Tokens
from training.encoders.tokens.tokenizer import Tokenizer
from training.settings import EncoderSettings

BATCH_SIZES = (8, 16, 32, 64, 128)
THREADS = 2
FLOOR_ROWS = 1024


@dataclass
class Bench:
    """The model on both sides, and the texts."""

    folder: Path
    texts: list[str]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer."""
        return Tokenizer(self.folder, EncoderSettings(model="-"))

    @cached_property
    def tokens(self) -> Tokens:
        """All texts."""
        return self.tokenise(self.texts)

    @cached_property
    def encoder(self) -> Any:
        """As an embedding actor has it."""
        encoder = load_encoder(self.folder)
        pack_linears(encoder)
        return encoder

    @cached_property
    def peer(self) -> Any:
        """The same model as a SentenceTransformer."""
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(str(self.folder), device="cpu")

    def tokenise(self, texts: Sequence[str]) -> Tokens:
        """As stage 0 does."""
        offsets, values = lists_to_csr(pa.chunked_array([self.tokenizer(texts, "")]))
        return Tokens(offsets, values.astype(np.int32, copy=False))

    def peer_encode(self, batch_size: int, share: int = 1) -> F32:
        """Every `share`-th text."""
        found: F32 = self.peer.encode(self.texts[::share], batch_size=batch_size, show_progress_bar=False)
        return found

    def peer_on_tokens(self, batch_size: int, share: int = 1) -> F32:
        """The peer's modules on batches of similar length, as its `encode` makes them."""
        rows = np.arange(0, len(self.tokens), share)
        order = rows[np.argsort(-self.tokens.lengths[rows], kind="stable")]
        vectors = np.empty((len(self.tokens), self.encoder.dimension), np.float32)
        ids = np.split(self.tokens.values, self.tokens.offsets[1:-1])
        with torch.inference_mode():
            for start in range(0, len(order), batch_size):
                some = order[start : start + batch_size]
                inputs = self.peer.tokenizer.pad({"input_ids": [ids[row] for row in some]}, return_tensors="pt")
                vectors[some] = self.peer.forward(dict(inputs))["sentence_embedding"].numpy()
        return vectors

    def best_batch(self, work: Callable[..., Any]) -> int:
        """The batch size at which the peer is fastest, on a tenth of the texts."""
        took = {size: min(timed(partial(work, size, 10)) for _ in range(2)) for size in BATCH_SIZES}
        return min(took, key=lambda size: took[size])

    def floor(self, share: int = 1) -> float:
        """Seconds that torch's own float32 product would take for the model's operations on the real tokens.

        Per layer and text of T tokens 2 T (4 D² + 2 D M) for the linear layers (width D, inner width M) and 4 T² D for the
        attention (Kaplan 2020, arXiv 2001.08361, section 2.1, forward pass).
        """
        config = self.encoder.model.config
        wide, inner, lengths = config.hidden_size, config.intermediate_size, self.tokens.lengths[::share].astype(np.float64)
        work = config.num_hidden_layers * (lengths * 2 * (4 * wide * wide + 2 * wide * inner) + 4 * lengths**2 * wide).sum()
        shapes = [(wide, wide)] * 4 + [(wide, inner), (inner, wide)]
        pairs = [(torch.randn(FLOOR_ROWS, low), torch.randn(low, high)) for low, high in shapes]

        def product() -> None:
            for left, right in pairs:
                left @ right

        seconds = float(np.median([timed(product) for _ in range(15)]))
        per_call = sum(2 * FLOOR_ROWS * low * high for low, high in shapes)
        return float(work) * seconds / per_call


def rows_of(case: str, bench: Bench, works: dict[str, Callable[[], Any]], runs: int, **more: float) -> list[Row]:
    floors: list[float] = []
    # in turns with the others, because the clock of a machine is not always the same
    took = paired(works | {"floor": lambda: floors.append(bench.floor())}, runs)
    ours, floor, count = took["ours"], float(np.median(floors)), len(bench.texts)
    return [
        compared(f"{case} n={count}", ours, f"SentenceTransformer {name}", took[name], floor)
        | {
            "peer_floor_share": floor / took[name],
            "texts_per_s": count / ours,
            "tokens_per_text": float(bench.tokens.lengths.mean()),
        }
        for name in works
        if name != "ours"
    ]
