"""How much memory the processes of searching and mining take, from counts alone: printed by `--dry-run`. Pure."""

from __future__ import annotations

MOST_PROPOSED = 2**24
"""Candidates that a search holds at once, at about 40 bytes each, however many a query asks for."""


def shard_actor_bytes(items: int, dimension: int, block: int, num_hits: int) -> int:
    """Most memory of an actor that holds `items` items, beyond that of its process: float32 and 8-bit vectors (and one
    part while it is read), a block's queries and candidates.
    """
    candidates = min(block * 4 * num_hits, max(MOST_PROPOSED, items))
    return items * dimension * 5 + items * 8 + block * dimension * 9 + candidates * 40


def mining_task_bytes(items: int, labels: int, block: int, num_hits: int) -> int:
    """Most memory of a task that chooses negatives, beyond that of its process: codes and ids of all items, all labels, and
    the candidates of one block."""
    return items * (8 + 8 + 8 + 24) + labels * 48 + block * num_hits * 60
