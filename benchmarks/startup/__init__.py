"""What of a run is no model work: starting processes, imports, commits."""
