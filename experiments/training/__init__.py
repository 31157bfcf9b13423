"""Training: the optimizer, the compiled step, the loop around it, and what is kept. No TensorFlow."""
