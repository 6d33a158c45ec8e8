"""What leaves a run for other tools."""
