"""A second opinion on which candidates are relevant after all."""
