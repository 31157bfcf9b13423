"""Prepares data sets from files on this machine, without a network: `python -m experiments.prepare`."""
