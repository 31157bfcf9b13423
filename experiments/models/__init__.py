"""The networks, in Flax NNX. They map images `(batch, height, width, channels)` to logits."""

from experiments.models.layers import ImageShape
from experiments.models.registry import NAMES, check_options, create
from experiments.models.resnet import STEMS
from experiments.models.torch_weights import load_torch

__all__ = ["NAMES", "STEMS", "ImageShape", "check_options", "create", "load_torch"]
