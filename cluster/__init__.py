"""True on every node and below everything: storage, tables, commits, labels, the Ray session, errors."""
