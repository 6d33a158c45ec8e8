"""Statistics against scipy, and the report's size and speed."""
