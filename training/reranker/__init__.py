"""The re-ranker: a model that scores pairs, trained on lists of items for each query."""
