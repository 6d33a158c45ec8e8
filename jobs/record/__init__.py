"""The run as a value: the names of its stages, their order, and what its commits say. Starts nothing."""
