"""Pairs that come from the items themselves or from who used them together."""
