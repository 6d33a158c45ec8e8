"""Reads logs of every shape into one table of rows, cut into partitions by whoever asked."""
