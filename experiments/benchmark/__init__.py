"""The speed and memory of a step, and the cost of the loop around it: every figure a ratio within one run."""
