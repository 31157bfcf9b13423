"""A convolution that is faster than XLA's on CPUs for residual networks.

`conv_general_dilated` is a replacement for `jax.lax.conv_general_dilated`. It computes a convolution of float32 arrays
and its two gradients in one of four ways, depending on the shapes:

| product | 3x3, stride 1, at least 64 channels | at least 64 output channels | fewer, at least 12x12 pixels | others |
|---|---|---|---|---|
| output, gradient of the images | Winograd | `lax` | `lax` | `lax` |
| gradient of the kernel | Winograd | im2col | 1x1: im2col; others, from 32 images: in parts | `lax` |

The functions are in `experiments.models.convolution_products`.

- With fewer channels, the transforms of Winograd's filtering cost more than it saves.
- XLA's gradient of a 1x1 kernel takes 1.7 to 16 times as long as im2col, that of the stem 2 to 2.5 times, and that of a
  strided 3x3 kernel 1.2 to 3.3 times.
- The time of XLA's gradient of a larger kernel with fewer channels grows faster than the batch: with 16 channels and
  32x32 pixels, 1.7 ms for 16 images and 120 ms for 128. The sum of the gradients of 8 images at a time takes 13 ms.
- From 64 channels, both need feature maps of at least 4x4 pixels, and Winograd at least 32 tiles of 4x4 outputs in a
  batch.

The thresholds were measured on two cores with AVX2 and jax 0.10.2; docs/speed.md shows the times.

A convolution is bilinear, and so are its two gradients. The three are JAX primitives that are one another's transposes.
Therefore forward mode, reverse mode and their combinations work to any order. Other platforms, other dtypes, dilations,
groups, `vmap`, and arrays with an explicit or manual mesh use `lax`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import AxisType

from experiments.models.convolution_products import (
    LAYOUT,
    Shape,
    im2col_kernel,
    kernel_in_parts,
    winograd_images,
    winograd_kernel,
    winograd_output,
    xla_images,
    xla_kernel,
    xla_output,
)

_Product = Callable[..., jax.Array]


def conv_general_dilated(
    lhs: jax.Array, rhs: jax.Array, window_strides: Sequence[int], padding: Any, **options: Any
) -> jax.Array:
    """Computes `jax.lax.conv_general_dilated`, faster on CPUs for the shapes of residual networks.

    Args:
      lhs: the images.
      rhs: the kernel.
      window_strides: the stride in each direction.
      padding: "SAME", "VALID", or the zeros before and after each direction.
      **options: further arguments of `jax.lax.conv_general_dilated`.

    Returns:
      The same convolution, to rounding: the relative error is below 1e-5.

    Example:
      >>> images, kernel = jnp.ones((2, 8, 8, 64)), jnp.ones((3, 3, 64, 64))
      >>> layout = ("NHWC", "HWIO", "NHWC")
      >>> conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=layout).shape
      (2, 8, 8, 64)
    """
    if _is_plain(lhs, rhs, window_strides, options):
        if isinstance(padding, str):
            padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], window_strides, padding)
        (top, bottom), (left, right) = np.asarray(padding).tolist()
        shape = Shape(lhs.shape, rhs.shape, int(window_strides[0]), ((top, bottom), (left, right)))
        if min(shape.output) > 0 and np.min(shape.padding) >= 0:
            return _output_of.bind(lhs, rhs, shape=shape)
    return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)


def _is_plain(lhs: jax.Array, rhs: jax.Array, strides: Sequence[int], options: dict[str, Any]) -> bool:
    """Returns whether a convolution is one that `Shape` describes, in float32, without an explicit or manual mesh."""
    given = {name: value for name, value in options.items() if value is not None}
    layout = given.pop("dimension_numbers", None)
    is_one = [np.all(np.asarray(given.pop(name, 1)) == 1) for name in ("lhs_dilation", "rhs_dilation")]
    is_one += [given.pop(name, 1) == 1 for name in ("feature_group_count", "batch_group_count")]
    if given or not all(is_one) or lhs.ndim != 4 or strides[0] != strides[1] or layout is None:
        return False
    if lhs.shape[3] != rhs.shape[2]:
        return False  # `lax` reports the error, or the layout is another one
    types = [jax.typeof(x) for x in (lhs, rhs)]
    is_float32 = all(each.dtype == jnp.float32 for each in types)
    is_automatic = all(axis is AxisType.Auto for each in types for axis in each.sharding.mesh.axis_types)
    layouts = [lax.conv_dimension_numbers(lhs.shape, rhs.shape, each) for each in (layout, LAYOUT)]
    return is_float32 and is_automatic and layouts[0] == layouts[1]


_CHANNELS, _SIDE, _TILES = 64, 4, 32  # the smallest number of channels, side of a feature map, and number of tiles
_NARROW_SIDE, _IMAGES = 12, 32  # with fewer channels: the smallest side of the images, and number of images for parts


def _is_for_winograd(shape: Shape) -> bool:
    is_3x3 = shape.kernel[:2] == (3, 3) and shape.stride == 1 and np.max(shape.padding) <= 2
    tiles = shape.images[0] * shape.tiles[0] * shape.tiles[1]
    return is_3x3 and min(shape.kernel[2:]) >= _CHANNELS and min(shape.output[1:3]) >= _SIDE and tiles >= _TILES


def _is_for_im2col(shape: Shape) -> bool:
    if shape.kernel[3] >= _CHANNELS:
        return min(shape.output[1:3]) >= _SIDE
    return shape.kernel[:2] == (1, 1) and _is_narrow_and_large(shape)


def _is_for_parts(shape: Shape) -> bool:
    return _is_narrow_and_large(shape) and shape.images[0] >= _IMAGES


def _is_narrow_and_large(shape: Shape) -> bool:
    return shape.kernel[3] < _CHANNELS and min(shape.images[1:3]) >= _NARROW_SIDE


def _fastest_output(shape: Shape) -> _Product:
    return winograd_output if _is_for_winograd(shape) else xla_output


def _fastest_images(shape: Shape) -> _Product:
    return winograd_images if _is_for_winograd(shape) else xla_images


def _fastest_kernel(shape: Shape) -> _Product:
    if _is_for_winograd(shape):
        return winograd_kernel
    if _is_for_im2col(shape):
        return im2col_kernel
    return kernel_in_parts if _is_for_parts(shape) else xla_kernel


def _primitive(
    name: str, xla: _Product, fastest: Callable[[Shape], _Product], result: Callable[[Shape], Any]
) -> Primitive:
    """Returns a primitive of two arrays and a `Shape`."""
    primitive = Primitive(name)

    def on_cpu(first: jax.Array, second: jax.Array, shape: Shape) -> jax.Array:
        return fastest(shape)(first, second, shape)

    def batched(arrays: Any, axes: Any, *, shape: Shape) -> Any:
        return jax.vmap(functools.partial(xla, shape=shape), axes)(*arrays), 0

    compiled = jax.jit(lambda first, second, shape: primitive.bind(first, second, shape=shape), static_argnames="shape")
    primitive.def_impl(compiled)
    primitive.def_abstract_eval(lambda first, _, *, shape: ShapedArray(result(shape), first.dtype))
    mlir.register_lowering(primitive, mlir.lower_fun(xla, multiple_results=False))
    mlir.register_lowering(primitive, mlir.lower_fun(on_cpu, multiple_results=False), platform="cpu")
    batching.primitive_batchers[primitive] = batched
    return primitive


_output_of = _primitive("convolution_output", xla_output, _fastest_output, lambda shape: shape.output)
_images_of = _primitive("convolution_images", xla_images, _fastest_images, lambda shape: shape.images)
_kernel_of = _primitive("convolution_kernel", xla_kernel, _fastest_kernel, lambda shape: shape.kernel)

ad.defbilinear(
    _output_of,
    lambda ct, _, kernel, *, shape: _images_of.bind(ct, kernel, shape=shape),
    lambda ct, images, _, *, shape: _kernel_of.bind(images, ct, shape=shape),
)
ad.defbilinear(
    _images_of,
    lambda ct, _, kernel, *, shape: _output_of.bind(ct, kernel, shape=shape),
    lambda ct, gradient, _, *, shape: _kernel_of.bind(ct, gradient, shape=shape),
)
ad.defbilinear(
    _kernel_of,
    lambda ct, _, gradient, *, shape: _images_of.bind(gradient, ct, shape=shape),
    lambda ct, images, _, *, shape: _output_of.bind(images, ct, shape=shape),
)
