"""How micro-batches run fast: weights laid out for a CPU, copies beside the work of a GPU."""
