"""The model that a run starts from: its folder checked, copied, tried."""
