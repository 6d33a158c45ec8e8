"""What users did with the results of each query: joins, sessions, signals, bots."""
