"""What tells one network's architecture from another: where it is the same, compiled functions are shared."""

from typing import Any

from flax import nnx

from experiments import data, models
from experiments.config import Config

Shape = tuple[str, int, tuple[int, int, int], tuple[tuple[str, Any], ...]]
"""Model, number of classes, image shape, and the model's options."""


def shape_of(config: Config, dataset: data.Dataset) -> Shape:
    """The architecture of a run."""
    return config.model, dataset.num_classes, dataset.image_shape, config.model_options


def network(shape: Shape, seed: int = 0) -> nnx.Module:
    """A network of this architecture, initialised by the seed."""
    *what, options = shape
    return models.create(*what, nnx.Rngs(seed), **dict(options))
