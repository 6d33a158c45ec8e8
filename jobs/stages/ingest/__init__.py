"""Stage 0 in pieces: reading sources, checking tables, resolving labels, preparing the base model."""
