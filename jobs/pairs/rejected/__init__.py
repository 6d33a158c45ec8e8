"""Queries that found nothing good: clusters, proposals, the sheet that a person edits."""
