"""Everything that needs a GPU, in one table: what is right there, and how fast it is."""
