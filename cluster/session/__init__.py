"""The Ray session of a driver: address, resources, progress, and what it leaves behind."""
