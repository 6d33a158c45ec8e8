"""The evaluate stage's parts: figures of the results, leakage, events."""
