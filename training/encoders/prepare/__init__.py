"""The model that a run starts from: its folder checked, copied, tried, and averaged with what was trained from it."""
