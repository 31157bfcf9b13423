"""Data sets, and the pipeline that a batch plan drives: TensorFlow and NumPy, no JAX."""

import os

# Read when TensorFlow is imported: it moves data here, and what it says of the processor's instructions is noise.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

from experiments.data.catalogue import SIZES, Location, made_up
from experiments.data.dataset import Dataset, Split, fingerprint
from experiments.data.sources import NAMES, SPLIT_BY_SEED, load
from experiments.data.stream import Batch, evaluation_batches, moved, training_batches

__all__ = [
    "NAMES",
    "SIZES",
    "SPLIT_BY_SEED",
    "Batch",
    "Dataset",
    "Location",
    "Split",
    "evaluation_batches",
    "fingerprint",
    "load",
    "made_up",
    "moved",
    "training_batches",
]
