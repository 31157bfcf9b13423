"""What is done to images inside the compiled step: JAX, in bits that depend on seed and position alone."""

from experiments.augmentation.crop import random_crop
from experiments.augmentation.flip import random_flip
from experiments.augmentation.keys import example_keys
from experiments.augmentation.normalize import normalize

__all__ = ["example_keys", "normalize", "random_crop", "random_flip"]
