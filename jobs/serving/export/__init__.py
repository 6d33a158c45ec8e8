"""A model, its vectors and an index as one stamped folder."""
