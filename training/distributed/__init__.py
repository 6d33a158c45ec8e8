"""Training as a job of Ray Train: the ranks, what they do next, and another try when a worker dies."""
