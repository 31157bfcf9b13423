"""Data sets, and the pipeline that a batch plan drives: TensorFlow and NumPy, no JAX."""

import os

# Read when TensorFlow is imported: it moves data here, and what it says of the processor's instructions is noise.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

from experiments.data.catalogue import NAMES, SIZES, SPLIT_BY_SEED, Location, load, made_up
from experiments.data.dataset import Dataset, Split
from experiments.data.stream import training_batches

__all__ = ["NAMES", "SIZES", "SPLIT_BY_SEED", "Dataset", "Location", "Split", "load", "made_up", "training_batches"]
