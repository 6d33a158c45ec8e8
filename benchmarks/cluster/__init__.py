"""What storage and its checks cost."""
