"""The re-ranker: prepared, trained on the run's negatives, and measured behind its retrievers."""
