"""What is done with a run that has commits: status, diagnose, gate, queries before and after."""
