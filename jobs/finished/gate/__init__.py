"""May the model that a run kept be shipped: figures, latency, checks."""
