"""The run as a value: names of its stages, their order, and what its commits say. Starts nothing."""
