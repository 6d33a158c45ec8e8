"""From what was counted to labels: bias, conflicts, splits, spelling variants."""
