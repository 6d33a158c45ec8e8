"""An encoder: a torch module from features to L2-normalised embeddings, and how it lies in a folder.

A folder is in sentence-transformers format wherever the encoder reads texts, so that `SentenceTransformer(folder)`
gives the same vectors. To add a kind: one module with a subclass here, one line in `load.py`.

N texts, T tokens (padded), D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cluster.tables.tables import F32, I64
from training.encoders.compute.streamed import streamed
from training.encoders.tokens.features import Features
from training.encoders.tokens.packing import pack

CPU_BUDGET_TOKENS = 1024
"""What fits the cache of a CPU core (measured: 512 to 1,024 are best, 2,048 is a tenth slower)."""
GPU_BUDGET_TOKENS = 32_768
MOST_WORKERS = 16
"""Micro-batches encoded at the same time on a CPU; with more, the interpreter's lock costs more than they gain."""


class Encoder(nn.Module):
    """Base of all kinds."""

    kind: str
    dimension: int
    pads: bool = True
    """Whether a micro-batch is padded to its longest text."""

    @property
    def token_table(self) -> nn.Module | None:
        """Where `forward` looks token ids up, if it takes "inputs_embeds" in place of "input_ids": the micro-batches of a
        step then share one lookup."""
        return None

    def collate(self, features: Features) -> dict[str, Tensor]:
        """Features as tensors, on the CPU."""
        raise NotImplementedError

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Embeddings [N, D], float32, of unit length."""
        raise NotImplementedError

    def save(self, folder: Path, state: dict[str, Tensor]) -> None:
        """Write the model with the weights `state` (CPU tensors) as a folder that `load_encoder` reads."""
        raise NotImplementedError

    def encode(
        self,
        features: Features,
        *,
        budget_tokens: int | None = None,
        bfloat16: bool = False,
        on_progress: Callable[[int], None] | None = None,
    ) -> F32:
        """Embed without gradient, in evaluation mode.

        Micro-batches of similar length under a token budget. On a CPU each of its threads takes a micro-batch of its own: two
        products side by side are faster than one that two threads share. On a GPU the budget is halved when memory runs out.

        Returns:
            [N, D] float32, in the order of `features`; the same for the same features, budget and number of threads.
        """
        device = next(self.parameters()).device
        budget = budget_tokens or (GPU_BUDGET_TOKENS if device.type == "cuda" else CPU_BUDGET_TOKENS)
        result = np.empty((len(features), self.dimension), np.float32)
        self.eval()

        def vectors_of(inputs: dict[str, Tensor]) -> Tensor:
            # both modes belong to a thread, so each call enters them
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                vectors: Tensor = self(inputs).float()
                return vectors

        def collate(rows: I64) -> dict[str, Tensor]:
            return self.collate(features.take(rows))

        def embed(rows: I64) -> int:
            result[rows] = vectors_of(collate(rows)).numpy()
            return len(rows)

        packs = pack(features.lengths, budget, pads=self.pads)
        on_cpu = device.type == "cpu"
        done = 0
        for count in _side_by_side(embed, packs) if on_cpu else streamed(packs, collate, vectors_of, device, result):
            done += count
            if on_progress is not None:
                on_progress(done)
        return result


def _side_by_side(embed: Callable[[I64], int], packs: list[I64]) -> Iterator[int]:
    """As many packs at a time as torch has threads, up to 16."""
    threads = torch.get_num_threads()
    workers = min(threads, len(packs), MOST_WORKERS)
    if workers < 2:
        yield from map(embed, packs)
        return
    try:
        with ThreadPoolExecutor(workers, "encode", torch.set_num_threads, (threads // workers,)) as pool:
            yield from pool.map(embed, packs)
    finally:
        torch.set_num_threads(threads)  # a worker's number became the whole process's
