"""Augmentation of images and targets inside the compiled step: JAX, in bits that depend on seed and position alone."""

from experiments.augmentation.batch import (
    example_keys,
    mix,
    normalize,
    random_crop,
    random_erasing,
    random_flip,
    smoothed,
)

__all__ = ["example_keys", "mix", "normalize", "random_crop", "random_erasing", "random_flip", "smoothed"]
