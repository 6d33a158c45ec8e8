"""What the figures of a run say is wrong, and what to try next: pure rules over telemetry and evaluations.

`evidence` is what the rules read, whoever gathered it; `rules_*` look at it; `rank` puts what holds in order.
"""
