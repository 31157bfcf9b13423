"""Data sets, and the pipeline that a batch plan drives: TensorFlow and NumPy, no JAX."""

import os

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # read at import; it only adds a warning where data is moved

from experiments.data.dataset import Dataset, Split
from experiments.data.registry import NAMES, load
from experiments.data.stream import evaluation_batches, training_batches

__all__ = ["NAMES", "Dataset", "Split", "evaluation_batches", "load", "training_batches"]
