"""The re-ranker: a cross-encoder trained on lists of items for each query."""
