"""A cross-encoder that re-ranks a retriever's hits: its settings and its training."""
