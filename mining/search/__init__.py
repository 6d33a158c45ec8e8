"""Finding the nearest items of every query, over shards of the corpus."""
