"""Data sets and the input pipeline, which follows a batch plan. They use NumPy and TensorFlow, and do not use JAX."""

import os

# TensorFlow reads these at import. It only moves data here, so its messages about CPU instructions are of no use.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

from experiments.data.catalogue import NAMES, SIZES, SPLIT_BY_SEED, load
from experiments.data.dataset import Dataset, Split
from experiments.data.location import Location
from experiments.data.sizes import size_of, stored_examples, synthetic
from experiments.data.stream import training_batches
from experiments.data.user_images import FORMS, UserImageSettings, images_digest, is_image_folder, is_user_images

__all__ = [
    "FORMS",
    "NAMES",
    "SIZES",
    "SPLIT_BY_SEED",
    "Dataset",
    "Location",
    "Split",
    "UserImageSettings",
    "images_digest",
    "is_image_folder",
    "is_user_images",
    "load",
    "size_of",
    "stored_examples",
    "synthetic",
    "training_batches",
]
