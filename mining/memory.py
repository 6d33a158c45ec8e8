"""How much memory the processes of searching and mining take, from counts alone: what `--dry-run` prints, and what tasks ask Ray
for, so that no node gets more of them than it has memory for. Pure.
"""

PROCESS_BYTES = 300 * 2**20
"""Memory of a Python process with Ray, Arrow and numba before it holds any data."""
MOST_PROPOSED = 2**24
"""Candidates that a search holds at once, at about 40 bytes each, however many a query asks for."""
NAMED_AT_ONCE = 2**22
"""Items whose ids a mining task looks up together, at about 24 bytes each; it holds chosen blocks until then."""


def shard_actor_bytes(items: int, dimension: int, block: int, num_hits: int) -> int:
    """Most memory of an actor that holds `items` items, beyond that of its process: float32 and 8-bit vectors (and one
    part while it is read), a block's queries and candidates.
    """
    candidates = min(block * 4 * num_hits, max(MOST_PROPOSED, items))
    return items * dimension * 5 + items * 8 + block * dimension * 9 + candidates * 40


def node_bytes(items: int, labels: int, queries: int, rules: int = 0, *, weighted: bool = False) -> int:
    """What all mining tasks of a node share: numbers of groups and texts, attribute columns (of about one value per item),
    weights, labels, and which items queries are."""
    return items * (4 + 4 + 16 * rules + 8 * weighted) + labels * 9 + queries * 16


def sharing_bytes(items: int) -> int:
    """What the task that makes it holds beside its result, and the copy of the result that Ray makes: codes of 64 bits, and how
    they are cut into ranges."""
    return items * (8 + 1 + 8)


def mining_task_bytes(counted_items: int, block: int, num_hits: int) -> int:
    """Most memory of a task that chooses negatives, beyond that of its process and what the node's tasks share: the candidates
    of one block; ids, and chosen blocks that wait for them.

    Args:
        counted_items: whose uses are counted; 0 without mining.max_uses.
    """
    return block * num_hits * 60 + NAMED_AT_ONCE * (24 + 40) + counted_items * 4
