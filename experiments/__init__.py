"""The study of Harada and Iiduka (arXiv 2409.09984), reproduced with `sam_optax`."""
