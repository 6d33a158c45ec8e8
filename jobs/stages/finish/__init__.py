"""The end of a run: merged models, the kept model exported, its card, the summary."""
