"""Runs: building a program from a config, training, saving, resuming, and reading finished runs."""
