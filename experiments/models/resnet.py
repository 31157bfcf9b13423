"""Residual networks (He et al., 2016, https://arxiv.org/abs/1512.03385)."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import variance_scaling

# PyTorch's default, He's uniform law with a = √5: uniform within ±1/√fan_in.
_initializer = variance_scaling(1 / 3, "fan_in", "uniform")
_Convolution = partial(nnx.Conv, padding="SAME", use_bias=False, kernel_init=_initializer)
_Norm = partial(nnx.BatchNorm, momentum=0.9, epsilon=1e-5)


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions with BatchNorm, and a shortcut around them: a projection where the shape changes."""

    def __init__(self, channels_in: int, channels: int, stride: int, *, rngs: nnx.Rngs) -> None:
        self.conv_1 = _Convolution(channels_in, channels, (3, 3), strides=stride, rngs=rngs)
        self.norm_1 = _Norm(channels, rngs=rngs)
        self.conv_2 = _Convolution(channels, channels, (3, 3), rngs=rngs)
        self.norm_2 = _Norm(channels, rngs=rngs)
        projection = None
        if stride != 1 or channels_in != channels:
            convolution = _Convolution(channels_in, channels, (1, 1), strides=stride, rngs=rngs)
            projection = nnx.Sequential(convolution, _Norm(channels, rngs=rngs))
        self.shortcut = projection

    def __call__(self, x: jax.Array) -> jax.Array:
        """Features `(batch, height, width, channels_in)` to `(batch, height/stride, width/stride, channels)`."""
        y = nnx.relu(self.norm_1(self.conv_1(x)))
        y = self.norm_2(self.conv_2(y))
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nnx.Module):
    """A 3x3 stem, stages of residual blocks of which each but the first halves the image, pooling, a linear layer."""

    def __init__(
        self, blocks: tuple[int, ...], widths: tuple[int, ...], num_classes: int, channels_in: int, *, rngs: nnx.Rngs
    ) -> None:
        self.conv = _Convolution(channels_in, widths[0], (3, 3), rngs=rngs)
        self.norm = _Norm(widths[0], rngs=rngs)
        layers, width = [], widths[0]
        for stage, (depth, channels) in enumerate(zip(blocks, widths, strict=True)):
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(BasicBlock(width, channels, stride, rngs=rngs))
                width = channels
        self.blocks = nnx.List(layers)
        bias = partial(jax.random.uniform, minval=-(width**-0.5), maxval=width**-0.5)
        self.head = nnx.Linear(width, num_classes, kernel_init=_initializer, bias_init=bias, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Images `(batch, height, width, channels)` to logits `(batch, num_classes)`."""
        x = nnx.relu(self.norm(self.conv(images)))
        for block in self.blocks:
            x = block(x)
        return self.head(jnp.mean(x, axis=(1, 2)))


def small_resnet(num_classes: int, image_shape: tuple[int, int, int], rngs: nnx.Rngs) -> ResNet:
    """ResNet-8: three blocks of 16, 32 and 64 channels; about 78,000 parameters."""
    return ResNet((1, 1, 1), (16, 32, 64), num_classes, image_shape[-1], rngs=rngs)


def resnet18(num_classes: int, image_shape: tuple[int, int, int], rngs: nnx.Rngs) -> ResNet:
    """ResNet-18, stem for small images: eight blocks of 64 to 512 channels; 11,220,132 parameters at 100 classes."""
    return ResNet((2, 2, 2, 2), (64, 128, 256, 512), num_classes, image_shape[-1], rngs=rngs)
