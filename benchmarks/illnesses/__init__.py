"""Trainings made ill on purpose, and what the diagnosis says of them."""
