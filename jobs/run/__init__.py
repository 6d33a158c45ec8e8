"""Runs a configuration: all rounds, one stage alone, mining alone, or as a job on a cluster."""
