"""A convolution that is faster than XLA's on CPUs for residual networks.

`conv_general_dilated` is a replacement for `jax.lax.conv_general_dilated`. It computes a convolution of float32 arrays
and its two gradients in one of three ways, depending on the shapes:

| product | 3x3, stride 1, at least 64 channels | other shapes |
|---|---|---|
| output, gradient of the images | Winograd | `lax` |
| gradient of the kernel | Winograd | im2col for at least 64 output channels, otherwise `lax` |

- Winograd's minimal filtering F(4x4, 3x3) needs 36 multiplications for 16 outputs, where a direct convolution needs 144
  (Lavin and Gray, 2015, https://arxiv.org/abs/1509.09308). With fewer channels, its transforms cost more than it saves.
- im2col computes the gradient of the kernel as one matrix product of the patches of the images and the gradient of the
  output. XLA's gradient of a 1x1 kernel takes 1.7 to 16 times as long, that of the stem 2 to 2.5 times, and that of a
  strided 3x3 kernel 1.2 to 3.3 times.
- Both need feature maps of at least 4x4 pixels, and Winograd needs at least 32 tiles of 4x4 outputs in a batch.

The thresholds were measured on two cores with AVX2 and jax 0.10.2; docs/speed.md shows the times.

A convolution is bilinear, and so are its two gradients. The three are JAX primitives that are one another's transposes.
Therefore forward mode, reverse mode and their combinations work to any order. Other platforms, other dtypes, dilations,
groups, `vmap`, and arrays with an explicit or manual mesh use `lax`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import AxisType

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_Pads = tuple[tuple[int, int], tuple[int, int]]
_Product = Callable[..., jax.Array]


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
    padding: _Pads

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
    layouts = [lax.conv_dimension_numbers(lhs.shape, rhs.shape, each) for each in (layout, _LAYOUT)]
    return is_float32 and is_automatic and layouts[0] == layouts[1]


# Winograd's F(4x4, 3x3) interpolates at 0, 1, -1, 2, -2 and infinity.
_IMAGES = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
_KERNEL = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
_KERNEL_2D = np.kron(_KERNEL, _KERNEL).astype(np.float32)
_OUTPUT = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])


def _combined(matrix: np.ndarray, parts: Sequence[jax.Array], axis: int) -> jax.Array:
    """Stacks linear combinations of `parts`, one for each row of the matrix."""

    def combination(factors: np.ndarray) -> jax.Array:
        terms = zip(factors.tolist(), parts, strict=True)
        return functools.reduce(jnp.add, [part if factor == 1 else factor * part for factor, part in terms if factor])

    # Without the barrier, XLA fuses the transforms of both directions into one loop, which takes seconds to compile.
    return lax.optimization_barrier(jnp.stack([combination(factors) for factors in matrix], axis))


def _windows(x: jax.Array, axis: int, tiles: int) -> list[jax.Array]:
    """Returns the first to the sixth element of each window: windows have six elements and begin every four."""
    blocks = x.reshape(*x.shape[:axis], tiles + 1, 4, *x.shape[axis + 1 :])
    phases = [lax.index_in_dim(blocks, i, axis + 1, keepdims=False) for i in range(4)]
    return [lax.slice_in_dim(phases[i % 4], i // 4, i // 4 + tiles, axis=axis) for i in range(6)]


def _transformed_images(images: jax.Array, shape: Shape) -> jax.Array:
    """Transforms the windows of the images, to `(36, windows, channels_in)`."""
    (batch, height, width, channels), (rows, columns) = images.shape, shape.tiles
    (top, _), (left, _) = shape.padding
    pads = [(0, 0), (top, 4 * rows + 4 - height - top), (left, 4 * columns + 4 - width - left), (0, 0)]
    half = _combined(_IMAGES, _windows(jnp.pad(images, pads), 1, rows), 0)
    return _combined(_IMAGES, _windows(half, 3, columns), 1).reshape(36, batch * rows * columns, channels)


def _transformed_gradient(gradient: jax.Array, shape: Shape) -> jax.Array:
    """Applies the transpose of the output's transform to tiles of its gradient, to `(36, tiles, channels)`."""
    (batch, height, width, channels), (rows, columns) = gradient.shape, shape.tiles
    padded = jnp.pad(gradient, [(0, 0), (0, 4 * rows - height), (0, 4 * columns - width), (0, 0)])
    tiles = padded.reshape(batch, rows, 4, columns, 4, channels)
    half = _combined(_OUTPUT.T, [tiles[:, :, i] for i in range(4)], 0)
    parts = [half[:, :, :, :, j] for j in range(4)]
    return _combined(_OUTPUT.T, parts, 1).reshape(36, batch * rows * columns, channels)


def _after(other: jax.Array, x: jax.Array) -> jax.Array:
    """Returns `x` in a form that XLA computes after `other`.

    Otherwise XLA transforms one factor of a product long before the other one exists, and keeps the result in memory.
    No number is both NaN and finite, but XLA does not know that.
    """
    first = other[(0,) * other.ndim]
    return jnp.where(jnp.isnan(first) & jnp.isfinite(first), 0, x)


def _winograd_output(images: jax.Array, kernel: jax.Array, shape: Shape) -> jax.Array:
    (batch, height, width, channels), (rows, columns) = shape.output, shape.tiles
    transformed = jnp.matmul(_KERNEL_2D, _after(images, kernel).reshape(9, -1)).reshape(36, -1, channels)
    products = lax.dot_general(_transformed_images(images, shape), transformed, (((2,), (1,)), ((0,), (0,))))
    products = products.reshape(6, 6, batch, rows, columns, channels)
    half = _combined(_OUTPUT, [products[:, j] for j in range(6)], 4)
    whole = _combined(_OUTPUT, list(half), 2)
    return whole.reshape(batch, 4 * rows, 4 * columns, channels)[:, :height, :width]


def _winograd_images(gradient: jax.Array, kernel: jax.Array, shape: Shape) -> jax.Array:
    """The gradient of the images is the convolution of the output's gradient with the kernel turned around."""
    turned = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    (top, bottom), (left, right) = shape.padding
    return _winograd_output(
        gradient, turned, Shape(shape.output, turned.shape, 1, ((2 - top, 2 - bottom), (2 - left, 2 - right)))
    )


def _winograd_kernel(images: jax.Array, gradient: jax.Array, shape: Shape) -> jax.Array:
    # Without the barrier, XLA fuses the transpose into the transform, which then takes three times as long.
    rows = lax.optimization_barrier(jnp.swapaxes(_transformed_images(images, shape), 1, 2))
    products = lax.dot_general(rows, _transformed_gradient(gradient, shape), (((2,), (1,)), ((0,), (0,))))
    return jnp.matmul(_KERNEL_2D.T, products.reshape(36, -1)).reshape(shape.kernel)


def _im2col_kernel(images: jax.Array, gradient: jax.Array, shape: Shape) -> jax.Array:
    (height, width, _, channels), (_, rows, columns, _), stride = shape.kernel, shape.output, shape.stride
    padded = jnp.pad(_after(gradient, images), [(0, 0), *shape.padding, (0, 0)])
    taps = [
        padded[:, i : i + stride * (rows - 1) + 1 : stride, j : j + stride * (columns - 1) + 1 : stride]
        for i in range(height)
        for j in range(width)
    ]
    patches = jnp.concatenate(taps, -1).reshape(gradient.size // channels, -1)
    return (lax.optimization_barrier(patches.T) @ gradient.reshape(-1, channels)).reshape(shape.kernel)


def _xla_output(images: jax.Array, kernel: jax.Array, shape: Shape) -> jax.Array:
    return lax.conv_general_dilated(images, kernel, (shape.stride,) * 2, shape.padding, dimension_numbers=_LAYOUT)


def _xla_images(gradient: jax.Array, kernel: jax.Array, shape: Shape) -> jax.Array:
    images = jax.ShapeDtypeStruct(shape.images, gradient.dtype)
    return jax.linear_transpose(lambda x: _xla_output(x, kernel, shape), images)(gradient)[0]


def _xla_kernel(images: jax.Array, gradient: jax.Array, shape: Shape) -> jax.Array:
    kernel = jax.ShapeDtypeStruct(shape.kernel, images.dtype)
    return jax.linear_transpose(lambda x: _xla_output(images, x, shape), kernel)(gradient)[0]


_CHANNELS, _SIDE, _TILES = 64, 4, 32  # the smallest number of channels, side of a feature map, and number of tiles


def _is_for_winograd(shape: Shape) -> bool:
    is_3x3 = shape.kernel[:2] == (3, 3) and shape.stride == 1 and np.max(shape.padding) <= 2
    tiles = shape.images[0] * shape.tiles[0] * shape.tiles[1]
    return is_3x3 and min(shape.kernel[2:]) >= _CHANNELS and min(shape.output[1:3]) >= _SIDE and tiles >= _TILES


def _is_for_im2col(shape: Shape) -> bool:
    return shape.kernel[3] >= _CHANNELS and min(shape.output[1:3]) >= _SIDE


def _fastest_output(shape: Shape) -> _Product:
    return _winograd_output if _is_for_winograd(shape) else _xla_output


def _fastest_images(shape: Shape) -> _Product:
    return _winograd_images if _is_for_winograd(shape) else _xla_images


def _fastest_kernel(shape: Shape) -> _Product:
    if _is_for_winograd(shape):
        return _winograd_kernel
    return _im2col_kernel if _is_for_im2col(shape) else _xla_kernel


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


_output_of = _primitive("convolution_output", _xla_output, _fastest_output, lambda shape: shape.output)
_images_of = _primitive("convolution_images", _xla_images, _fastest_images, lambda shape: shape.images)
_kernel_of = _primitive("convolution_kernel", _xla_kernel, _fastest_kernel, lambda shape: shape.kernel)

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
