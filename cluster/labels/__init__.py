"""Known relevance, and whether a candidate is among the few items that a query knows."""
