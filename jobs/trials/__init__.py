"""Short experiments before a long run: probe and sweep."""
