"""The networks by name."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx

from experiments.models.layers import ImageShape
from experiments.models.resnet import BasicBlock, Bottleneck, ResNet, SmallResNet, Stages, WideResNet
from experiments.models.vit import Size, ViT

_WIDTHS = (64, 128, 256, 512)

# The parameters are counted at 100 classes and colour images of 32x32 pixels.
_BUILDERS: dict[str, Callable[..., nnx.Module]] = {
    "small_resnet": partial(SmallResNet, Stages(BasicBlock, (1, 1, 1), (16, 32, 64))),  # about 78,000 at 10 classes
    "resnet18": partial(ResNet, Stages(BasicBlock, (2, 2, 2, 2), _WIDTHS)),  # 11,220,132
    "resnet50": partial(ResNet, Stages(Bottleneck, (3, 4, 6, 3), _WIDTHS)),  # 23,705,252
    "wide_resnet28_10": partial(WideResNet, 28, 10),  # 36,536,884
    "vit_tiny": partial(ViT, Size(width=192, depth=9, heads=12)),  # 2,709,796
    "vit_small": partial(ViT, Size(width=384, depth=12, heads=6)),  # 14,276,068
}

NAMES = tuple(_BUILDERS)


def create(name: str, num_classes: int, image_shape: ImageShape, rngs: nnx.Rngs, **options: Any) -> nnx.Module:
    """Returns the network `name`, initialised.

    Args:
      name: one of `NAMES`.
      num_classes: the number of logits.
      image_shape: `(height, width, channels)`.
      rngs: the source of the initial parameters, and of the keys of stochastic depth if it is used.
      **options: the options of the network. All networks have `dtype`, the dtype of the computation; parameters and
        statistics stay float32, and logits are float32. The ResNets have `stem`, cifar or imagenet. The ViTs have
        `shifted_patches`, whether patches include shifted copies of the image; `locality_attention`, whether a token
        attends only to the other tokens; and `drop_path`, the probability that a branch is dropped in training.

    Returns:
      A module that maps images `(batch, height, width, channels)` to logits `(batch, num_classes)`.

    Raises:
      ValueError: If the network or the option is unknown, or if the value of an option is invalid.
    """
    if name not in _BUILDERS:
        raise ValueError(f"model is {name!r}: choose one of {', '.join(NAMES)}.")
    check_options(name, options)
    return _BUILDERS[name](num_classes, image_shape, rngs, **options)


def check_options(name: str, options: dict[str, Any]) -> None:
    """Checks that the network `name` has these options, and that `dtype` is a floating-point dtype.

    Args:
      name: one of `NAMES`.
      options: the options of `create`.

    Raises:
      ValueError: If the network does not have an option, or if the dtype is not floating-point.
    """
    builder = _BUILDERS[name]
    network = builder.func if isinstance(builder, partial) else builder
    # The metaclass of a module hides the signature of its class.
    signature = inspect.signature(network.__init__ if isinstance(network, type) else network)
    offered = [each.name for each in signature.parameters.values() if each.kind is each.KEYWORD_ONLY]
    for option, value in options.items():
        if option not in offered:
            known = ", ".join(offered) or "none"
            raise ValueError(f"{option} is {value!r}: {name} has no such option; it has {known}.")
    dtype = options.get("dtype")
    if dtype is not None and not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"dtype is {dtype!r}: give jnp.float32, jnp.bfloat16 or another of floating numbers.")
