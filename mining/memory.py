"""How much memory the processes of searching and mining take, from counts alone: what `--dry-run` prints, and what tasks ask Ray
for, so that no node gets more of them than it has memory for. Pure.
"""

PROCESS_BYTES = 300 * 2**20
"""Memory of a Python process with Ray, Arrow and numba before it holds any data."""
SEARCHER_BYTES = 450 * 2**20
"""The same with torch and FAISS."""
MOST_PROPOSED = 2**24
"""Candidates that a search holds at once, at about 40 bytes each, however many a query asks for."""
SHARE_OF_NODE = 0.5
"""Of a node's memory, for the shards on it: the rest is for queries, hits and other processes."""
GPU_BYTES = 12 * 2**30
"""Of a GPU's memory, for a shard in float32 and in half precision: what is left of 16 GiB beside a block's scores."""
ROWS_OF_UNKNOWN = 1_000_000
"""Items of a shard where the node's memory is not known."""
IN_FLIGHT_BYTES = 4 * 2**30
"""Hits of all blocks in flight, on all nodes together."""
NAMED_AT_ONCE = 2**22
"""Items whose ids a mining task looks up together, at about 24 bytes each; it holds chosen blocks until then."""

IDS_FOR_ONE = 32
"""Ids that a mining task reads for each that it names, at most: each task passes over the ids of all items."""


def most_mining_tasks(items: int, named: int) -> int:
    """Tasks that choose negatives, at most: with more of them, reading ids would be most of their work.

    Args:
        named: items that all of them name, each as often as it is.
    """
    return max(1, IDS_FOR_ONE * named // max(1, items))


def shard_actor_bytes(items: int, dimension: int, block: int, num_hits: int) -> int:
    """Most memory of an actor that holds `items` items, beyond that of its process: float32 and 8-bit vectors (and one
    part while it is read), a block's queries and candidates.
    """
    candidates = min(block * 4 * num_hits, max(MOST_PROPOSED, items))
    return items * dimension * 5 + items * 8 + block * dimension * 9 + candidates * 40


def rows_that_fit(dimension: int, node_memory: int, actors: int, *, gpu: bool) -> int:
    """Items of a shard whose actor has its part of half of a node's memory, and of a GPU's: a power of two, so that a node which
    is a little fuller when a search is resumed cuts the corpus as before.

    Args:
        actors: on the node. node_memory: 0: not known.
    """
    if not node_memory:
        return ROWS_OF_UNKNOWN
    host = int(node_memory * SHARE_OF_NODE) // actors // (dimension * 5 + 8)
    fits = min(host, GPU_BYTES // (dimension * 6)) if gpu else host
    return int(2 ** (max(1, fits).bit_length() - 1))


def blocks_in_flight(holders: int, writers: int, block: int, num_hits: int) -> int:
    """Query blocks that are searched or merged at the same time: two for each writer, as far as their hits fit the nodes' shared
    memory; three at least, so that no holder waits."""
    hits = holders * block * num_hits * 12
    return max(3, min(2 * writers + 1, IN_FLIGHT_BYTES // max(1, hits)))


def node_bytes(items: int, labels: int, queries: int, rules: int = 0, *, weighted: bool = False) -> int:
    """What all mining tasks of a node share: numbers of groups and texts, attribute columns (of about one value per item),
    weights, labels, and which items queries are."""
    return items * (4 + 4 + 16 * rules + 8 * weighted) + labels * 9 + queries * 16


def sharing_bytes(items: int) -> int:
    """What the task that makes it holds beside its result, and the copy of the result that Ray makes: codes of 64 bits, and how
    they are cut into ranges."""
    return items * (8 + 1 + 8)


def word_index_bytes(corpus_bytes: int) -> int:
    """The BM25 index of a corpus of so many compressed bytes, and what building it takes: about four times its texts, which zstd
    makes a quarter as long."""
    return corpus_bytes * 16


def counting_bytes(items: int) -> int:
    """What the task that counts the uses of all items takes: the counts, and a sorted copy."""
    return items * 8


def mining_task_bytes(counted_items: int, block: int, num_hits: int) -> int:
    """Most memory of a task that chooses negatives, beyond that of its process and what the node's tasks share: the candidates
    of one block; ids, and chosen blocks that wait for them.

    Args:
        counted_items: whose uses are counted; 0 without mining.max_uses.
    """
    return block * num_hits * 60 + NAMED_AT_ONCE * (24 + 40) + counted_items * 4
