"""Mined negatives for other trainers."""
