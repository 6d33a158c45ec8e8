"""The mine stage's parts: further candidates, near-duplicates, the teacher, the report."""
