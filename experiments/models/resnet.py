"""Residual networks (He et al., 2016, https://arxiv.org/abs/1512.03385)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from experiments.models.layers import BatchNorm, bias, kernel

STEMS = ("cifar", "imagenet")


class Layers(NamedTuple):
    """How the layers of a residual network are made.

    Attributes:
      same_padding: whether strided convolutions pad as TensorFlow does, the less in front, or as PyTorch does, the
        same on both sides. On images of an even size their windows lie one pixel apart.
      dtype: what they compute in; None is that of inputs and parameters.
    """

    same_padding: bool = False
    dtype: DTypeLike | None = None

    def convolution(self, channels_in: int, channels: int, size: int, stride: int = 1, *, rngs: nnx.Rngs) -> nnx.Conv:
        """A convolution of `size` x `size` pixels without bias, initialised as PyTorch has it."""
        padding = "SAME" if self.same_padding else size // 2
        how = {"padding": padding, "use_bias": False, "kernel_init": kernel, "dtype": self.dtype}
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


class ResNet(nnx.Module):
    """A stem, stages of residual blocks of which each but the first halves the image, pooling, a linear layer.

    Args:
      block: `BasicBlock` or `Bottleneck`.
      depths: the blocks of each stage.
      widths: the channels of each stage, before the block's expansion; the first is that of the stem, too.
      num_classes: the number of logits.
      channels_in: the channels of the images.
      layers: how the layers are made.
      rngs: the source of the initial parameters.
      stem: `cifar`, a 3x3 convolution, or `imagenet`, a strided 7x7 convolution and 3x3 maxima: a sixteenth of the
        pixels.

    Raises:
      ValueError: If there is no such stem.
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        depths: tuple[int, ...],
        widths: tuple[int, ...],
        num_classes: int,
        channels_in: int,
        *,
        layers: Layers,
        rngs: nnx.Rngs,
        stem: str = "cifar",
    ) -> None:
        if stem not in STEMS:
            raise ValueError(f"stem is {stem!r}: give one of {', '.join(STEMS)}.")
        self.depths = depths
        self.pools = stem == "imagenet"
        size, stride = (7, 2) if self.pools else (3, 1)
        self.conv = layers.convolution(channels_in, widths[0], size, stride, rngs=rngs)
        self.norm = layers.norm(widths[0], rngs=rngs)
        blocks, width = [], widths[0]
        for stage, (depth, channels) in enumerate(zip(depths, widths, strict=True)):
            for number in range(depth):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(block(width, channels, stride, layers, rngs=rngs))
                width = block.expansion * channels
        self.blocks = nnx.List(blocks)
        laws = {"kernel_init": kernel, "bias_init": bias(width)}
        self.head = nnx.Linear(width, num_classes, **laws, dtype=layers.dtype, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Images `(batch, height, width, channels)` to logits `(batch, num_classes)`, in float32 or more."""
        x = nnx.relu(self.norm(self.conv(images)))
        if self.pools:
            x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for block in self.blocks:
            x = block(x)
        logits = self.head(jnp.mean(x, axis=(1, 2)))
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


class SmallResNet(ResNet):
    """ResNet-8, a network of ours: three basic blocks of 16, 32 and 64 channels, padded as TensorFlow does."""

    def __init__(
        self, num_classes: int, channels_in: int, *, rngs: nnx.Rngs, stem: str, dtype: DTypeLike | None
    ) -> None:
        how = {"stem": stem, "layers": Layers(same_padding=True, dtype=dtype)}
        super().__init__(BasicBlock, (1, 1, 1), (16, 32, 64), num_classes, channels_in, rngs=rngs, **how)


def small_resnet(
    num_classes: int,
    image_shape: tuple[int, int, int],
    rngs: nnx.Rngs,
    *,
    stem: str = "cifar",
    dtype: DTypeLike | None = None,
) -> SmallResNet:
    """ResNet-8: three blocks of 16, 32 and 64 channels; about 78,000 parameters."""
    return SmallResNet(num_classes, image_shape[-1], rngs=rngs, stem=stem, dtype=dtype)


def resnet18(
    num_classes: int,
    image_shape: tuple[int, int, int],
    rngs: nnx.Rngs,
    *,
    stem: str = "cifar",
    dtype: DTypeLike | None = None,
) -> ResNet:
    """ResNet-18: eight basic blocks of 64 to 512 channels; 11,220,132 parameters at 100 classes."""
    how = {"stem": stem, "layers": Layers(dtype=dtype), "rngs": rngs}
    return ResNet(BasicBlock, (2, 2, 2, 2), (64, 128, 256, 512), num_classes, image_shape[-1], **how)


def resnet50(
    num_classes: int,
    image_shape: tuple[int, int, int],
    rngs: nnx.Rngs,
    *,
    stem: str = "cifar",
    dtype: DTypeLike | None = None,
) -> ResNet:
    """ResNet-50: sixteen bottlenecks of 256 to 2048 channels; 23,705,252 parameters at 100 classes."""
    how = {"stem": stem, "layers": Layers(dtype=dtype), "rngs": rngs}
    return ResNet(Bottleneck, (3, 4, 6, 3), (64, 128, 256, 512), num_classes, image_shape[-1], **how)
