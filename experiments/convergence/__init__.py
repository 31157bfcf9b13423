"""The convergence study: gradient norms during training, on networks and on a quadratic with a known solution."""
