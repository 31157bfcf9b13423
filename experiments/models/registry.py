"""The networks by name."""

from collections.abc import Callable
from typing import Any

from flax import nnx

from experiments.models import resnet

_BUILDERS: dict[str, Callable[..., nnx.Module]] = {
    "small_resnet": resnet.small_resnet,
    "resnet18": resnet.resnet18,
}

NAMES = tuple(_BUILDERS)


def create(
    name: str, num_classes: int, image_shape: tuple[int, int, int], rngs: nnx.Rngs, **options: Any
) -> nnx.Module:
    """The network `name`, initialised.

    Args:
      name: one of `NAMES`.
      num_classes: the number of logits.
      image_shape: `(height, width, channels)`.
      rngs: the source of the initial parameters, and of dropout where there is any.
      **options: what the network offers beside.

    Returns:
      A module from images `(batch, height, width, channels)` to logits `(batch, num_classes)`.

    Raises:
      ValueError: If there is no such network.
    """
    if name not in _BUILDERS:
        raise ValueError(f"model is {name!r}: choose one of {', '.join(NAMES)}.")
    return _BUILDERS[name](num_classes, image_shape, rngs, **options)
