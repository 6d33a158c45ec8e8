"""What `hardmine mine` and `hardmine run --dry-run` print."""
