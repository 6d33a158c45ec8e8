"""From items to negatives: embed (Ray Data), shard and search (FAISS), filter and choose."""
