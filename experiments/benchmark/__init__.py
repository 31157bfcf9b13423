"""Measures the time and memory of a step, and the cost of the training loop; every figure is a ratio within one run."""
