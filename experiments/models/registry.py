"""The networks by name."""

import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx

from experiments.models import resnet, vit, wide_resnet

_BUILDERS: dict[str, Callable[..., nnx.Module]] = {
    "small_resnet": resnet.small_resnet,
    "resnet18": resnet.resnet18,
    "resnet50": resnet.resnet50,
    "wide_resnet28_10": wide_resnet.wide_resnet28_10,
    "vit_tiny": vit.vit_tiny,
    "vit_small": vit.vit_small,
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
      rngs: the source of the initial parameters, and of stochastic depth where there is any.
      **options: what the network offers beside. All have `dtype`, what is computed in: parameters and statistics stay
        float32, logits are float32. The ResNets have `stem`, cifar or imagenet; the ViTs `shifted_patches` and
        `locality_attention`, whether tokens see shifted patches and attend to the others alone, and `drop_path`, the
        probability with which a branch is left out while training.

    Returns:
      A module from images `(batch, height, width, channels)` to logits `(batch, num_classes)`.

    Raises:
      ValueError: If there is no such network, if it has no such option, or if the option has no such value.
    """
    if name not in _BUILDERS:
        raise ValueError(f"model is {name!r}: choose one of {', '.join(NAMES)}.")
    check_options(name, options)
    return _BUILDERS[name](num_classes, image_shape, rngs, **options)


def check_options(name: str, options: dict[str, Any]) -> None:
    """Refuse options that the network `name` has not, or values that they cannot have.

    Args:
      name: one of `NAMES`.
      options: as `create` takes them.

    Raises:
      ValueError: If an option is not offered, or if it has no such value.
    """
    parameters = inspect.signature(_BUILDERS[name]).parameters.values() if options else ()
    offered = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    for option, value in options.items():
        if option not in offered:
            raise ValueError(
                f"{option} is {value!r}: {name} has no such option; it has {', '.join(offered) or 'none'}."
            )
    dtype = options.get("dtype")
    if dtype is not None and not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"dtype is {dtype!r}: give jnp.float32, jnp.bfloat16 or another of floating numbers.")
