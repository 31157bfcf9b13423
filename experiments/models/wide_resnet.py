"""Wide residual networks (Zagoruyko and Komodakis, 2016, https://arxiv.org/abs/1605.07146)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import variance_scaling
from jax.typing import DTypeLike

from experiments.models import layers

_he_normal = variance_scaling(2.0, "fan_out", "normal")  # not JAX's `he_normal`, whose tails are cut off
_CHANNELS = 16  # of the stem, and of the first stage at a width of 1


def _convolution(
    channels_in: int, channels: int, size: int, stride: int = 1, *, dtype: DTypeLike | None, rngs: nnx.Rngs
) -> nnx.Conv:
    how = {"padding": size // 2, "use_bias": False, "kernel_init": _he_normal, "dtype": dtype}
    return nnx.Conv(channels_in, channels, (size, size), strides=stride, rngs=rngs, **how)


class PreActivationBlock(nnx.Module):
    """BatchNorm and ReLU before each of two 3x3 convolutions; where the shape changes, the shortcut sees them, too."""

    def __init__(
        self, channels_in: int, channels: int, stride: int, *, dtype: DTypeLike | None, rngs: nnx.Rngs
    ) -> None:
        self.norm_1 = layers.BatchNorm(channels_in, dtype=dtype, rngs=rngs)
        self.conv_1 = _convolution(channels_in, channels, 3, stride, dtype=dtype, rngs=rngs)
        self.norm_2 = layers.BatchNorm(channels, dtype=dtype, rngs=rngs)
        self.conv_2 = _convolution(channels, channels, 3, dtype=dtype, rngs=rngs)
        projection = None
        if channels_in != channels:
            projection = _convolution(channels_in, channels, 1, stride, dtype=dtype, rngs=rngs)
        self.shortcut = projection

    def __call__(self, x: jax.Array) -> jax.Array:
        """Features `(batch, height, width, channels_in)` to `(batch, height/stride, width/stride, channels)`."""
        activated = nnx.relu(self.norm_1(x))
        y = nnx.relu(self.norm_2(self.conv_1(activated)))
        return self.conv_2(y) + (x if self.shortcut is None else self.shortcut(activated))


class WideResNet(nnx.Module):
    """A 3x3 stem, three stages of pre-activation blocks, BatchNorm, pooling, a linear layer.

    Args:
      depth: the convolutions on the way from the stem to the last, and the linear layer: 4 + 6 blocks a stage.
      width: how many times wider than 16, 32 and 64 channels the stages are.
      num_classes: the number of logits.
      channels_in: the channels of the images.
      rngs: the source of the initial parameters.
      dtype: what is computed in; None is that of inputs and parameters.

    Raises:
      ValueError: If no whole number of blocks makes the depth.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        num_classes: int,
        channels_in: int,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike | None = None,
    ) -> None:
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"depth is {depth}: give 10, 16, 22, 28 or another that is 4 more than a multiple of 6.")
        how = {"dtype": dtype, "rngs": rngs}
        self.depths = ((depth - 4) // 6,) * 3
        self.conv = _convolution(channels_in, _CHANNELS, 3, **how)
        blocks, channels = [], _CHANNELS
        for stage, blocks_of_stage in enumerate(self.depths):
            wide = _CHANNELS * width * 2**stage
            for number in range(blocks_of_stage):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(PreActivationBlock(channels, wide, stride, **how))
                channels = wide
        self.blocks = nnx.List(blocks)
        self.norm = layers.BatchNorm(channels, **how)
        self.head = nnx.Linear(channels, num_classes, kernel_init=layers.kernel, **how)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Images `(batch, height, width, channels)` to logits `(batch, num_classes)`, in float32 or more."""
        x = self.conv(images)
        for block in self.blocks:
            x = block(x)
        logits = self.head(jnp.mean(nnx.relu(self.norm(x)), axis=(1, 2)))
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def wide_resnet28_10(
    num_classes: int, image_shape: tuple[int, int, int], rngs: nnx.Rngs, *, dtype: DTypeLike | None = None
) -> WideResNet:
    """WRN-28-10: twelve blocks of 160 to 640 channels; 36,536,884 parameters at 100 classes."""
    return WideResNet(28, 10, num_classes, image_shape[-1], dtype=dtype, rngs=rngs)
