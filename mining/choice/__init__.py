"""Which candidates may be negatives, and which are taken."""
