"""Residual networks (He et al., 2016, https://arxiv.org/abs/1512.03385) and wide residual networks.

Wide residual networks are those of Zagoruyko and Komodakis (2016, https://arxiv.org/abs/1605.07146).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer, variance_scaling

from experiments.models.convolution import conv_general_dilated
from experiments.models.layers import BatchNorm, Dtype, ImageShape, bias, kernel

STEMS = ("cifar", "imagenet")
_he_normal = variance_scaling(2.0, "fan_out", "normal")  # unlike JAX's `he_normal`, it is not truncated


class Layers(NamedTuple):
    """The settings of a residual network's layers.

    Attributes:
      same_padding: whether strided convolutions pad as TensorFlow does, with less padding at the top and left, or as
        PyTorch does, with equal padding on both sides. On images of even size, their windows differ by one pixel.
      dtype: the dtype of the computation; None means the dtype of inputs and parameters.
      kernel_init: the initializer of the convolutions; the default is PyTorch's.
    """

    same_padding: bool = False
    dtype: Dtype = None
    kernel_init: Initializer = kernel

    def convolution(self, channels_in: int, channels: int, size: int, stride: int = 1, *, rngs: nnx.Rngs) -> nnx.Conv:
        """Returns a convolution of `size` x `size` pixels without bias."""
        padding = "SAME" if self.same_padding else size // 2
        return nnx.Conv(
            channels_in,
            channels,
            (size, size),
            strides=stride,
            padding=padding,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            conv_general_dilated=conv_general_dilated,
            rngs=rngs,
        )

    def norm(self, channels: int, *, rngs: nnx.Rngs) -> nnx.BatchNorm:
        """Returns a BatchNorm with PyTorch's constants."""
        return BatchNorm(channels, dtype=self.dtype, rngs=rngs)

    def shortcut(self, channels_in: int, channels: int, stride: int, *, rngs: nnx.Rngs) -> nnx.Sequential | None:
        """Returns a projection if a block changes the shape, otherwise None."""
        if stride == 1 and channels_in == channels:
            return None
        convolution = self.convolution(channels_in, channels, 1, stride, rngs=rngs)
        return nnx.Sequential(convolution, self.norm(channels, rngs=rngs))


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions with BatchNorm, and a shortcut around them, which is a projection if the shape changes."""

    expansion = 1

    def __init__(self, channels_in: int, channels: int, stride: int, layers: Layers, *, rngs: nnx.Rngs) -> None:
        self.conv_1 = layers.convolution(channels_in, channels, 3, stride, rngs=rngs)
        self.norm_1 = layers.norm(channels, rngs=rngs)
        self.conv_2 = layers.convolution(channels, channels, 3, rngs=rngs)
        self.norm_2 = layers.norm(channels, rngs=rngs)
        self.shortcut = layers.shortcut(channels_in, channels, stride, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps features `(batch, height, width, channels_in)` to `(batch, height/stride, width/stride, channels)`."""
        y = nnx.relu(self.norm_1(self.conv_1(x)))
        y = self.norm_2(self.conv_2(y))
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class Bottleneck(nnx.Module):
    """Three convolutions with a shortcut: 1x1 to fewer channels, 3x3 with the stride, 1x1 to more channels."""

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
        """Maps features `(batch, height, width, channels_in)` to `(batch, height/stride, width/stride, 4·channels)`."""
        y = nnx.relu(self.norm_1(self.conv_1(x)))
        y = nnx.relu(self.norm_2(self.conv_2(y)))
        y = self.norm_3(self.conv_3(y))
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class PreActivationBlock(nnx.Module):
    """BatchNorm and ReLU before each of two 3x3 convolutions, with a shortcut around them.

    If the number of channels changes, the shortcut is a 1x1 convolution, applied after the first BatchNorm and ReLU.
    """

    expansion = 1

    def __init__(self, channels_in: int, channels: int, stride: int, layers: Layers, *, rngs: nnx.Rngs) -> None:
        self.norm_1 = layers.norm(channels_in, rngs=rngs)
        self.conv_1 = layers.convolution(channels_in, channels, 3, stride, rngs=rngs)
        self.norm_2 = layers.norm(channels, rngs=rngs)
        self.conv_2 = layers.convolution(channels, channels, 3, rngs=rngs)
        changes = channels_in != channels
        self.shortcut = layers.convolution(channels_in, channels, 1, stride, rngs=rngs) if changes else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps features `(batch, height, width, channels_in)` to `(batch, height/stride, width/stride, channels)`."""
        activated = nnx.relu(self.norm_1(x))
        y = nnx.relu(self.norm_2(self.conv_1(activated)))
        return self.conv_2(y) + (x if self.shortcut is None else self.shortcut(activated))


class Stages(NamedTuple):
    """The residual blocks of a network, in stages. Each stage except the first halves the height and the width.

    Attributes:
      block: the class of the blocks.
      depths: the number of blocks of each stage.
      widths: the number of channels of each stage, before the expansion of the block.
    """

    block: type[BasicBlock | Bottleneck | PreActivationBlock]
    depths: tuple[int, ...]
    widths: tuple[int, ...]

    def blocks(self, width: int, layers: Layers, rngs: nnx.Rngs) -> nnx.List:
        """Returns the blocks of all stages, in order, for features of `width` channels."""
        blocks = []
        for stage, (depth, channels) in enumerate(zip(self.depths, self.widths, strict=True)):
            for number in range(depth):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(self.block(width, channels, stride, layers, rngs=rngs))
                width = self.block.expansion * channels
        return nnx.List(blocks)


def _logits(head: nnx.Linear, features: jax.Array) -> jax.Array:
    """Pools features `(batch, height, width, channels)` and applies the head; logits are at least float32."""
    logits = head(jnp.mean(features, axis=(1, 2)))
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


class ResNet(nnx.Module):
    """A stem, stages of residual blocks, pooling, and a linear layer.

    Args:
      stages: the stages, of `BasicBlock` or `Bottleneck`; the width of the first stage is also that of the stem.
      num_classes: the number of logits.
      image_shape: `(height, width, channels)`.
      rngs: the source of the initial parameters.
      stem: `cifar`, a 3x3 convolution, or `imagenet`, a strided 7x7 convolution and strided 3x3 max pooling, which
        together divide the height and the width by 4.
      dtype: the dtype of the computation; None means the dtype of inputs and parameters.

    Raises:
      ValueError: If the stem is unknown.
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
        """Maps images `(batch, height, width, channels)` to logits `(batch, num_classes)`, at least float32."""
        x = nnx.relu(self.norm(self.conv(images)))
        if self.pools:
            # Flax annotates the padding as a string, but its documentation also allows pairs.
            x = nnx.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))  # pyright: ignore[reportArgumentType]
        for block in self.blocks:
            x = block(x)
        return _logits(self.head, x)


class SmallResNet(ResNet):
    """ResNet-8, a small network of this project with TensorFlow's padding. It is not a port of a PyTorch model."""

    same_padding = True


class WideResNet(nnx.Module):
    """A 3x3 stem, three stages of pre-activation blocks, BatchNorm, pooling, and a linear layer.

    Args:
      depth: the nominal number of layers, `4 + 6 n` for `n` blocks per stage.
      width: the factor by which the stages are wider than 16, 32 and 64 channels.
      num_classes: the number of logits.
      image_shape: `(height, width, channels)`.
      rngs: the source of the initial parameters.
      dtype: the dtype of the computation; None means the dtype of inputs and parameters.

    Raises:
      ValueError: If the depth is not `4 + 6 n` with `n` at least 1.
    """

    def __init__(
        self, depth: int, width: int, num_classes: int, image_shape: ImageShape, rngs: nnx.Rngs, *, dtype: Dtype = None
    ) -> None:
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"depth is {depth}: give 4 + 6 n with n at least 1, such as 10, 16, 22 or 28.")
        layers = Layers(dtype=dtype, kernel_init=_he_normal)
        self.depths = ((depth - 4) // 6,) * 3
        self.conv = layers.convolution(image_shape[-1], 16, 3, rngs=rngs)
        stages = Stages(PreActivationBlock, self.depths, (16 * width, 32 * width, 64 * width))
        self.blocks = stages.blocks(16, layers, rngs)
        self.norm = layers.norm(64 * width, rngs=rngs)
        self.head = nnx.Linear(64 * width, num_classes, kernel_init=kernel, dtype=dtype, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images `(batch, height, width, channels)` to logits `(batch, num_classes)`, at least float32."""
        x = self.conv(images)
        for block in self.blocks:
            x = block(x)
        return _logits(self.head, nnx.relu(self.norm(x)))
