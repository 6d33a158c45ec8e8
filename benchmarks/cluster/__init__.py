"""What storage and its checks cost, and what a run survives."""
