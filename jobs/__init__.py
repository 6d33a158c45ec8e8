"""Command-line jobs that run hardmine end to end."""
