"""Runs as Python objects for a notebook: tables of Arrow, charts that display, errors of one paragraph."""
