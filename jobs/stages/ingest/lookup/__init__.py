"""Which rows ids name, and which texts are one: by buckets of a hash, never in one process."""
