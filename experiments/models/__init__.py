"""The networks, in Flax NNX: images `(batch, height, width, channels)` to logits."""

from experiments.models.registry import NAMES, create

__all__ = ["NAMES", "create"]
