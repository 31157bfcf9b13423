"""The products of convolutions that `experiments.models.convolution` chooses from.

A convolution of images and a kernel is bilinear, and so are its two gradients. Functions named `*_output` compute the
convolution, `*_images` the gradient of the images from that of the output, and `*_kernel` the gradient of the kernel.

- Winograd's minimal filtering F(4x4, 3x3) needs 36 multiplications for 16 outputs, where a direct convolution needs 144
  (Lavin and Gray, 2015, https://arxiv.org/abs/1509.09308). With few channels, its transforms cost more than it saves.
- im2col computes the gradient of the kernel as one matrix product of the patches of the images and the gradient of the
  output.
- The gradient of the kernel in parts is the sum of the gradients of 8 images at a time.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

LAYOUT = ("NHWC", "HWIO", "NHWC")
Pads = tuple[tuple[int, int], tuple[int, int]]


class Shape(NamedTuple):
    """The static description of a convolution.

    Attributes:
      images: the shape of the images, `(batch, height, width, channels_in)`.
      kernel: the shape of the kernel, `(height, width, channels_in, channels)`.
      stride: the stride in both directions.
      padding: the number of zeros before and after the rows, and before and after the columns.
    """

    images: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: int
    padding: Pads

    @property
    def output(self) -> tuple[int, int, int, int]:
        """The shape of the output, `(batch, height, width, channels)`."""
        sides = zip(self.images[1:3], self.padding, self.kernel[:2], strict=True)
        height, width = ((size + sum(pads) - taps) // self.stride + 1 for size, pads, taps in sides)
        return self.images[0], height, width, self.kernel[3]

    @property
    def tiles(self) -> tuple[int, int]:
        """The number of 4x4 tiles that cover the output, in both directions."""
        return -(-self.output[1] // 4), -(-self.output[2] // 4)


# Winograd's F(4x4, 3x3) interpolates at 0, 1, -1, 2, -2 and infinity. The transforms of kernels and outputs are matrix
# products. Those of images and gradients are loops, because a product would need a copy of all windows. They share
# common terms, because XLA's time to compile, and to read a compiled step from the cache, grows with the operations.
_KERNEL = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
_KERNEL_2D = np.kron(_KERNEL, _KERNEL).astype(np.float32)
_OUTPUT = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
_OUTPUT_2D = np.kron(_OUTPUT, _OUTPUT).astype(np.float32)


_traced_once = functools.partial(jax.jit, static_argnames="shape")  # once per shape; XLA inlines the calls


def _image_transform(parts: Sequence[jax.Array]) -> list[jax.Array]:
    """Transforms windows of six pixels in one direction."""
    x0, x1, x2, x3, x4, x5 = parts
    even, odd = x4 - 4 * x2, x3 - 4 * x1
    difference, twice = x4 - x2, 2 * (x3 - x1)
    first, last = difference + 4 * (x0 - x2), x5 - x3 - 2 * twice
    return [first, even + odd, even - odd, difference + twice, difference - twice, last]


def _gradient_transform(parts: Sequence[jax.Array]) -> list[jax.Array]:
    """Transforms four pixels of the output's gradient in one direction: by the transpose of `_OUTPUT`."""
    g0, g1, g2, g3 = parts
    even, odd = g0 + g2, g1 + g3
    weighted_even, weighted_odd = g0 + 4 * g2, 2 * (g1 + 4 * g3)
    return [g0, even + odd, even - odd, weighted_even + weighted_odd, weighted_even - weighted_odd, g3]


def _stacked(parts: Sequence[jax.Array], axis: int) -> jax.Array:
    """Stacks the transforms in one direction."""
    # Without the barrier, XLA fuses the transforms of both directions into one loop, which takes seconds to compile.
    return lax.optimization_barrier(jnp.stack(parts, axis))


def _windows(x: jax.Array, axis: int, tiles: int) -> list[jax.Array]:
    """Returns the first to the sixth element of each window: windows have six elements and begin every four."""
    return [lax.slice_in_dim(x, i, i + 4 * (tiles - 1) + 1, 4, axis) for i in range(6)]


@_traced_once
def _transformed_images(images: jax.Array, shape: Shape) -> jax.Array:
    """Transforms the windows of the images, to `(36, windows, channels_in)`."""
    (batch, height, width, channels), (rows, columns) = images.shape, shape.tiles
    (top, _), (left, _) = shape.padding
    pads = [(0, 0), (top, 4 * rows + 2 - height - top), (left, 4 * columns + 2 - width - left), (0, 0)]
    half = _stacked(_image_transform(_windows(jnp.pad(images, pads), 1, rows)), 0)
    return _stacked(_image_transform(_windows(half, 3, columns)), 1).reshape(36, batch * rows * columns, channels)


def _transformed_gradient(gradient: jax.Array, shape: Shape) -> jax.Array:
    """Applies the transpose of the output's transform to tiles of its gradient, to `(36, tiles, channels)`."""
    (batch, height, width, channels), (rows, columns) = gradient.shape, shape.tiles
    padded = jnp.pad(gradient, [(0, 0), (0, 4 * rows - height), (0, 4 * columns - width), (0, 0)])
    tiles = padded.reshape(batch, rows, 4, columns, 4, channels)
    half = _stacked(_gradient_transform([tiles[:, :, i] for i in range(4)]), 0)
    parts = [half[:, :, :, :, j] for j in range(4)]
    return _stacked(_gradient_transform(parts), 1).reshape(36, batch * rows * columns, channels)


def _after(other: jax.Array, x: jax.Array) -> jax.Array:
    """Returns `x` in a form that XLA computes after `other`.

    Otherwise XLA transforms one factor of a product long before the other one exists, and keeps the result in memory.
    No number is both NaN and finite, but XLA does not know that.
    """
    first = other[(0,) * other.ndim]
    return jnp.where(jnp.isnan(first) & jnp.isfinite(first), 0, x)


@_traced_once
def winograd_output(images: jax.Array, kernel: jax.Array, shape: Shape) -> jax.Array:
    """Computes the convolution by Winograd's filtering."""
    (batch, height, width, channels), (rows, columns) = shape.output, shape.tiles
    transformed = jnp.matmul(_KERNEL_2D, _after(images, kernel).reshape(9, -1)).reshape(36, -1, channels)
    products = lax.dot_general(_transformed_images(images, shape), transformed, (((2,), (1,)), ((0,), (0,))))
    tiles = jnp.matmul(_OUTPUT_2D, products.reshape(36, -1)).reshape(4, 4, batch, rows, columns, channels)
    pixels = tiles.transpose(2, 3, 0, 4, 1, 5)
    return pixels.reshape(batch, 4 * rows, 4 * columns, channels)[:, :height, :width]


def winograd_images(gradient: jax.Array, kernel: jax.Array, shape: Shape) -> jax.Array:
    """Computes the gradient of the images by Winograd's filtering: a convolution with the kernel turned around."""
    turned = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    (top, bottom), (left, right) = shape.padding
    return winograd_output(
        gradient, turned, Shape(shape.output, turned.shape, 1, ((2 - top, 2 - bottom), (2 - left, 2 - right)))
    )


def winograd_kernel(images: jax.Array, gradient: jax.Array, shape: Shape) -> jax.Array:
    """Computes the gradient of the kernel by Winograd's filtering."""
    # Without the barrier, XLA fuses the transpose into the transform, which then takes three times as long.
    rows = lax.optimization_barrier(jnp.swapaxes(_transformed_images(images, shape), 1, 2))
    products = lax.dot_general(rows, _transformed_gradient(gradient, shape), (((2,), (1,)), ((0,), (0,))))
    return jnp.matmul(_KERNEL_2D.T, products.reshape(36, -1)).reshape(shape.kernel)


def im2col_kernel(images: jax.Array, gradient: jax.Array, shape: Shape) -> jax.Array:
    """Computes the gradient of the kernel as the product of all patches and the gradient of the output."""
    (height, width, _, channels), (_, rows, columns, _), stride = shape.kernel, shape.output, shape.stride
    padded = jnp.pad(_after(gradient, images), [(0, 0), *shape.padding, (0, 0)])
    taps = [
        padded[:, i : i + stride * (rows - 1) + 1 : stride, j : j + stride * (columns - 1) + 1 : stride]
        for i in range(height)
        for j in range(width)
    ]
    patches = jnp.concatenate(taps, -1).reshape(gradient.size // channels, -1)
    return (lax.optimization_barrier(patches.T) @ gradient.reshape(-1, channels)).reshape(shape.kernel)


def xla_output(images: jax.Array, kernel: jax.Array, shape: Shape) -> jax.Array:
    """Computes the convolution by `lax`."""
    return lax.conv_general_dilated(images, kernel, (shape.stride,) * 2, shape.padding, dimension_numbers=LAYOUT)


def xla_images(gradient: jax.Array, kernel: jax.Array, shape: Shape) -> jax.Array:
    """Computes the gradient of the images by `lax`."""
    images = jax.ShapeDtypeStruct(shape.images, gradient.dtype)
    return jax.linear_transpose(lambda x: xla_output(x, kernel, shape), images)(gradient)[0]


def xla_kernel(images: jax.Array, gradient: jax.Array, shape: Shape) -> jax.Array:
    """Computes the gradient of the kernel by `lax`."""
    kernel = jax.ShapeDtypeStruct(shape.kernel, images.dtype)
    return jax.linear_transpose(lambda x: xla_output(images, x, shape), kernel)(gradient)[0]


_PART, _PARTS = 8, 16  # the smallest number of images in a part, and the largest number of parts: each is compiled


def kernel_in_parts(images: jax.Array, gradient: jax.Array, shape: Shape) -> jax.Array:
    """Computes the gradient of the kernel as a sum over parts of the batch, each by `lax`."""
    size = max(_PART, -(-len(images) // _PARTS))

    def part(first: int) -> jax.Array:
        chosen = images[first : first + size]
        result = xla_kernel(chosen, gradient[first : first + size], shape._replace(images=chosen.shape))
        return lax.optimization_barrier(result)  # otherwise XLA makes one convolution of all parts

    return functools.reduce(jnp.add, [part(first) for first in range(0, len(images), size)])
