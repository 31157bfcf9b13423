"""What is done to images inside the compiled step: JAX, in bits that depend on seed and position alone."""

from experiments.augmentation.crop import random_crop
from experiments.augmentation.erasing import random_erasing
from experiments.augmentation.flip import random_flip
from experiments.augmentation.keys import example_keys
from experiments.augmentation.label_smoothing import smoothed
from experiments.augmentation.mixing import mix
from experiments.augmentation.normalize import normalize

__all__ = ["example_keys", "mix", "normalize", "random_crop", "random_erasing", "random_flip", "smoothed"]
