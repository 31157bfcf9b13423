"""The convergence study: gradient norms along training, on networks and on a quadratic whose answer is known."""
