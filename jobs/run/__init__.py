"""Runs a configuration: the driver, its rounds, one stage alone, mining alone, and submitting it to a cluster."""
