"""Reads a run that has commits: status, diagnosis, gate, queries before and after."""
