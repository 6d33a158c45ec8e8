"""Retrievers and re-rankers measured together, and what to ship of them."""
