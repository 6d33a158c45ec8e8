"""Searching and mining against their peers."""
