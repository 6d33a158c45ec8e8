"""Contrastive fine-tuning of the encoder: losses, cross-rank candidates, schedules and what is logged about them."""
