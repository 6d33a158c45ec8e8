"""Where candidates come from besides the model's own search, and what counts as the same thing."""
