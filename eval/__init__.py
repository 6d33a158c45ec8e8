"""Retrieval figures, their uncertainty, and the policies that read them; needs numpy only.

`metrics` scores ranked hits, `significance` says how sure a difference is, `verdict` turns that into the next step.
"""
