"""How much memory training takes, from counts alone: what `--dry-run` prints. Pure."""

PROCESS_BYTES = 600 * 2**20
"""Memory of a Python process with Ray, torch and Arrow before it holds any data."""
POOL_ROWS = 2**18
"""Items that random negatives are drawn from, at most: enough that a step of thousands of queries repeats few of them, and no
more than a rank can hold."""


def loaded_items(items: int, examples: int, positives: int, hard: int, random: int, epochs: int) -> int:
    """Most items that the ranks of a node load: the whole corpus where it is small, else what the examples name.

    Args:
        positives: relevant items of an example, on average. hard, random: negatives of an example in each epoch.
    """
    if items <= POOL_ROWS:
        return items
    return min(items, examples * (positives + hard * epochs) + min(POOL_ROWS, examples * random * epochs))


def loaded_bytes(loaded: int, queries: int, row_bytes: int) -> int:
    """Memory of what is loaded, once per node: tokens or vectors, and codes, places and labels of each."""
    return (loaded + queries) * (row_bytes + 24)
