"""What mining did, for people and for decisions."""
