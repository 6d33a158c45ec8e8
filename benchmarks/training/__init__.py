"""Training steps against sentence-transformers."""
