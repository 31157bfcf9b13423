"""What is done to images inside the compiled step: JAX, in bits that depend on seed and position alone."""

from experiments.augmentation.images import example_keys, normalize, random_crop, random_erasing, random_flip
from experiments.augmentation.targets import mix, smoothed

__all__ = ["example_keys", "mix", "normalize", "random_crop", "random_erasing", "random_flip", "smoothed"]
