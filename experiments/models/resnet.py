"""Residual networks (He et al., 2016, https://arxiv.org/abs/1512.03385), also wide ones.

Wide residual networks are those of Zagoruyko and Komodakis (2016, https://arxiv.org/abs/1605.07146).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer, variance_scaling

from experiments.models.layers import BatchNorm, Dtype, ImageShape, bias, kernel

STEMS = ("cifar", "imagenet")
_he_normal = variance_scaling(2.0, "fan_out", "normal")  # not JAX's `he_normal`, whose tails are cut off


class Layers(NamedTuple):
    """How the layers of a residual network are made.

    Attributes:
      same_padding: whether strided convolutions pad as TensorFlow does, the less in front, or as PyTorch does, the
        same on both sides. On images of an even size their windows lie one pixel apart.
      dtype: what they compute in; None is that of inputs and parameters.
      kernel_init: the initializer of the convolutions; the default is PyTorch's.
    """

    same_padding: bool = False
    dtype: Dtype = None
    kernel_init: Initializer = kernel

    def convolution(self, channels_in: int, channels: int, size: int, stride: int = 1, *, rngs: nnx.Rngs) -> nnx.Conv:
        """A convolution of `size` x `size` pixels without bias."""
        padding = "SAME" if self.same_padding else size // 2
        how = {"padding": padding, "use_bias": False, "kernel_init": self.kernel_init, "dtype": self.dtype}
        return nnx.Conv(channels_in, channels, (size, size), strides=stride, rngs=rngs, **how)

    def norm(self, channels: int, *, rngs: nnx.Rngs) -> nnx.BatchNorm:
        """A BatchNorm with PyTorch's constants."""
        return BatchNorm(channels, dtype=self.dtype, rngs=rngs)

    def shortcut(self, channels_in: int, channels: int, stride: int, *, rngs: nnx.Rngs) -> nnx.Sequential | None:
        """A projection where a block changes the shape, else None."""
        if stride == 1 and channels_in == channels:
            return None
        convolution = self.convolution(channels_in, channels, 1, stride, rngs=rngs)
        return nnx.Sequential(convolution, self.norm(channels, rngs=rngs))


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions with BatchNorm, and a shortcut around them: a projection where the shape changes."""

    expansion = 1

    def __init__(self, channels_in: int, channels: int, stride: int, layers: Layers, *, rngs: nnx.Rngs) -> None:
        self.conv_1 = layers.convolution(channels_in, channels, 3, stride, rngs=rngs)
        self.norm_1 = layers.norm(channels, rngs=rngs)
        self.conv_2 = layers.convolution(channels, channels, 3, rngs=rngs)
        self.norm_2 = layers.norm(channels, rngs=rngs)
        self.shortcut = layers.shortcut(channels_in, channels, stride, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Features `(batch, height, width, channels_in)` to `(batch, height/stride, width/stride, channels)`."""
        y = nnx.relu(self.norm_1(self.conv_1(x)))
        y = self.norm_2(self.conv_2(y))
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class Bottleneck(nnx.Module):
    """A 3x3 convolution, the strided one, between two of 1x1 that narrow and widen, and a shortcut around them."""

    expansion = 4

    def __init__(self, channels_in: int, channels: int, stride: int, layers: Layers, *, rngs: nnx.Rngs) -> None:
        wide = self.expansion * channels
        self.conv_1 = layers.convolution(channels_in, channels, 1, rngs=rngs)
        self.norm_1 = layers.norm(channels, rngs=rngs)
        self.conv_2 = layers.convolution(channels, channels, 3, stride, rngs=rngs)
        self.norm_2 = layers.norm(channels, rngs=rngs)
        self.conv_3 = layers.convolution(channels, wide, 1, rngs=rngs)
        self.norm_3 = layers.norm(wide, rngs=rngs)
        self.shortcut = layers.shortcut(channels_in, wide, stride, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Features `(batch, height, width, channels_in)` to `(batch, height/stride, width/stride, 4 channels)`."""
        y = nnx.relu(self.norm_1(self.conv_1(x)))
        y = nnx.relu(self.norm_2(self.conv_2(y)))
        y = self.norm_3(self.conv_3(y))
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class PreActivationBlock(nnx.Module):
    """BatchNorm and ReLU before each of two 3x3 convolutions; where the shape changes, the shortcut sees them, too."""

    expansion = 1

    def __init__(self, channels_in: int, channels: int, stride: int, layers: Layers, *, rngs: nnx.Rngs) -> None:
        self.norm_1 = layers.norm(channels_in, rngs=rngs)
        self.conv_1 = layers.convolution(channels_in, channels, 3, stride, rngs=rngs)
        self.norm_2 = layers.norm(channels, rngs=rngs)
        self.conv_2 = layers.convolution(channels, channels, 3, rngs=rngs)
        changes = channels_in != channels
        self.shortcut = layers.convolution(channels_in, channels, 1, stride, rngs=rngs) if changes else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Features `(batch, height, width, channels_in)` to `(batch, height/stride, width/stride, channels)`."""
        activated = nnx.relu(self.norm_1(x))
        y = nnx.relu(self.norm_2(self.conv_1(activated)))
        return self.conv_2(y) + (x if self.shortcut is None else self.shortcut(activated))


class Stages(NamedTuple):
    """The residual blocks of a network, in stages of which each but the first halves the image.

    Attributes:
      block: the kind of the blocks.
      depths: the blocks of each stage.
      widths: the channels of each stage, before the block's expansion.
    """

    block: type[BasicBlock | Bottleneck | PreActivationBlock]
    depths: tuple[int, ...]
    widths: tuple[int, ...]

    def blocks(self, width: int, layers: Layers, rngs: nnx.Rngs) -> nnx.List:
        """The blocks of all stages, in order, on features of `width` channels."""
        blocks = []
        for stage, (depth, channels) in enumerate(zip(self.depths, self.widths, strict=True)):
            for number in range(depth):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(self.block(width, channels, stride, layers, rngs=rngs))
                width = self.block.expansion * channels
        return nnx.List(blocks)


def _logits(head: nnx.Linear, features: jax.Array) -> jax.Array:
    """Pools features `(batch, height, width, channels)` and applies the head, in float32 or more."""
    logits = head(jnp.mean(features, axis=(1, 2)))
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


class ResNet(nnx.Module):
    """A stem, stages of residual blocks, pooling, a linear layer.

    Args:
      stages: of `BasicBlock` or `Bottleneck`; the first stage's width is that of the stem, too.
      num_classes: the number of logits.
      image_shape: `(height, width, channels)`.
      rngs: the source of the initial parameters.
      stem: `cifar`, a 3x3 convolution, or `imagenet`, a strided 7x7 convolution and 3x3 maxima: a sixteenth of the
        pixels.
      dtype: what is computed in; None is that of inputs and parameters.

    Raises:
      ValueError: If there is no such stem.
    """

    same_padding = False  # see `Layers`

    def __init__(
        self,
        stages: Stages,
        num_classes: int,
        image_shape: ImageShape,
        rngs: nnx.Rngs,
        *,
        stem: str = "cifar",
        dtype: Dtype = None,
    ) -> None:
        if stem not in STEMS:
            raise ValueError(f"stem is {stem!r}: give one of {', '.join(STEMS)}.")
        layers = Layers(self.same_padding, dtype)
        self.depths = stages.depths
        self.pools = stem == "imagenet"
        size, stride = (7, 2) if self.pools else (3, 1)
        width = stages.widths[0]
        self.conv = layers.convolution(image_shape[-1], width, size, stride, rngs=rngs)
        self.norm = layers.norm(width, rngs=rngs)
        self.blocks = stages.blocks(width, layers, rngs)
        width = stages.block.expansion * stages.widths[-1]
        self.head = nnx.Linear(width, num_classes, kernel_init=kernel, bias_init=bias(width), dtype=dtype, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Images `(batch, height, width, channels)` to logits `(batch, num_classes)`, in float32 or more."""
        x = nnx.relu(self.norm(self.conv(images)))
        if self.pools:
            # Flax declares the padding as a string, and documents pairs as well.
            x = nnx.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))  # pyright: ignore[reportArgumentType]
        for block in self.blocks:
            x = block(x)
        return _logits(self.head, x)


class SmallResNet(ResNet):
    """ResNet-8, a network of ours, padded as TensorFlow does; it has no original in PyTorch."""

    same_padding = True


class WideResNet(nnx.Module):
    """A 3x3 stem, three stages of pre-activation blocks, BatchNorm, pooling, a linear layer.

    Args:
      depth: the convolutions on the way from the stem to the last, and the linear layer: 4 + 6 blocks a stage.
      width: how many times wider than 16, 32 and 64 channels the stages are.
      num_classes: the number of logits.
      image_shape: `(height, width, channels)`.
      rngs: the source of the initial parameters.
      dtype: what is computed in; None is that of inputs and parameters.

    Raises:
      ValueError: If no whole number of blocks makes the depth.
    """

    def __init__(
        self, depth: int, width: int, num_classes: int, image_shape: ImageShape, rngs: nnx.Rngs, *, dtype: Dtype = None
    ) -> None:
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"depth is {depth}: give 10, 16, 22, 28 or another that is 4 more than a multiple of 6.")
        layers = Layers(dtype=dtype, kernel_init=_he_normal)
        self.depths = ((depth - 4) // 6,) * 3
        self.conv = layers.convolution(image_shape[-1], 16, 3, rngs=rngs)
        stages = Stages(PreActivationBlock, self.depths, (16 * width, 32 * width, 64 * width))
        self.blocks = stages.blocks(16, layers, rngs)
        self.norm = layers.norm(64 * width, rngs=rngs)
        self.head = nnx.Linear(64 * width, num_classes, kernel_init=kernel, dtype=dtype, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Images `(batch, height, width, channels)` to logits `(batch, num_classes)`, in float32 or more."""
        x = self.conv(images)
        for block in self.blocks:
            x = block(x)
        return _logits(self.head, nnx.relu(self.norm(x)))
