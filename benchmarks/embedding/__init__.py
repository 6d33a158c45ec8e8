"""Embedding against sentence-transformers."""
