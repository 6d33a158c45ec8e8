"""Comparing two exports on real queries, and reading the outcome of a live test."""
