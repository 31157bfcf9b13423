"""Training: the optimizer, the compiled step, the training loop, and the files. It imports no TensorFlow."""
