"""The largest inner products on a device: a matrix product in tiles of items, and the best of each tile by chunks.

torch.topk sorts a good part of what it looks at. So a tile is cut into chunks: the W chunks with the largest maxima hold W
scores that no item outside of them exceeds, and only their scores are sorted. Nothing waits for the device.

Q queries, N items, T items of a tile, C items of a chunk, W proposed items.
"""

from __future__ import annotations

from math import log2
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

TILE_QUERIES = 1024
TILE_SCORES = 2**27
"""Scores of a tile: 512 MiB in float32, whatever the number of items."""
WORTHWHILE = 256
"""A tile of fewer items than this for each one wanted is sorted whole."""
SHORTEST_CHUNK, LONGEST_CHUNK = 16, 256


def chunk_length(tile: int, width: int) -> int:
    """The power of two that leaves least to sort: T / C maxima and W × C scores, so about √(T / W)."""
    ideal = max(1.0, (tile / max(1, width)) ** 0.5)
    return int(min(LONGEST_CHUNK, max(SHORTEST_CHUNK, 2 ** round(log2(ideal)))))


def tile_topk(scores_QT: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The best `width` of each row: (scores [Q, W] descending, positions [Q, W] int64); as torch.topk, ties either way."""
    import torch

    queries, tile = scores_QT.shape
    width = min(width, tile)
    if tile < WORTHWHILE * width:
        best = scores_QT.topk(width, dim=1)
        return best.values, best.indices
    chunk = chunk_length(tile, width)
    chunks = tile // chunk
    whole = scores_QT[:, : chunks * chunk].reshape(queries, chunks, chunk)
    largest = whole.amax(dim=2).topk(width, dim=1, sorted=False).indices
    candidates = whole.gather(1, largest[:, :, None].expand(-1, -1, chunk)).flatten(1)
    rest = scores_QT[:, chunks * chunk :]  # too short for a chunk
    best = torch.cat([candidates, rest], dim=1).topk(width, dim=1)
    of_chunk = best.indices.clamp(max=candidates.shape[1] - 1)
    positions = largest.gather(1, of_chunk // chunk) * chunk + of_chunk % chunk
    beyond = best.indices - candidates.shape[1]
    return best.values, torch.where(beyond >= 0, chunks * chunk + beyond, positions)


def tiled_topk(queries_QD: Tensor, items_ND: Tensor, width: int, *, tile_scores: int = TILE_SCORES) -> tuple[Tensor, Tensor]:
    """The best `width` inner products of each query: (scores [Q, W] descending, item positions [Q, W] int64), W at most N."""
    import torch

    blocks = []
    for queries in torch.split(queries_QD, TILE_QUERIES):
        tile = max(1, tile_scores // max(1, len(queries)))
        best: tuple[Tensor, Tensor] | None = None
        for start in range(0, len(items_ND), tile):
            values, positions = tile_topk(queries @ items_ND[start : start + tile].T, width)
            if best is not None:
                values = torch.cat([best[0], values], dim=1)
                positions = torch.cat([best[1], positions + start], dim=1)
                top = values.topk(min(width, values.shape[1]), dim=1)
                values, positions = top.values, positions.gather(1, top.indices)
            best = values, positions
        assert best is not None, "a shard has items"
        blocks.append(best)
    return torch.cat([values for values, _ in blocks]), torch.cat([positions for _, positions in blocks])
