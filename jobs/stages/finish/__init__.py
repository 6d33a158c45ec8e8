"""The end of a run: the kept model exported, its card, the summary."""
