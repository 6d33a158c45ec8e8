"""Two models before users: rankings compared, mixed, and the outcome of a live test."""
