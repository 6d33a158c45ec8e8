"""Encoders that score pairs of a query and an item: read together, or apart."""
