"""Laws of the convolution for CPUs: it is `lax.conv_general_dilated` to rounding, and differentiable to any order."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from experiments.models import convolution_products
from experiments.models.convolution import conv_general_dilated

LAYOUT = ("NHWC", "HWIO", "NHWC")
WINOGRAD = {
    "even": ((8, 8, 8, 64), (3, 3, 64, 72), 1, "SAME"),
    "odd sides": ((16, 7, 9, 72), (3, 3, 72, 64), 1, "SAME"),
    "no padding": ((8, 12, 10, 64), (3, 3, 64, 64), 1, "VALID"),
    "uneven padding": ((8, 9, 8, 64), (3, 3, 64, 64), 1, ((0, 2), (1, 0))),
}
IM2COL = {
    "stem": ((2, 9, 8, 3), (3, 3, 3, 64), 1, "SAME"),
    "wide stem": ((2, 16, 15, 3), (7, 7, 3, 64), 2, ((3, 3), (3, 3))),
    "stride 2": ((2, 9, 8, 8), (3, 3, 8, 64), 2, ((1, 1), (1, 1))),
    "stride 2, TensorFlow": ((2, 8, 9, 8), (3, 3, 8, 64), 2, "SAME"),
    "stride 3": ((2, 11, 12, 4), (3, 3, 4, 64), 3, ((1, 1), (1, 1))),
    "shortcut": ((2, 8, 9, 8), (1, 1, 8, 64), 2, "VALID"),
    "few tiles": ((1, 8, 8, 64), (3, 3, 64, 64), 1, "SAME"),
    "narrow shortcut": ((2, 12, 13, 4), (1, 1, 4, 8), 2, "VALID"),
}
PARTS = {
    "narrow": ((40, 12, 13, 4), (3, 3, 4, 8), 1, "SAME"),
    "narrow, a part of 4 images": ((36, 12, 12, 3), (3, 3, 3, 16), 2, ((1, 1), (1, 1))),
    "parts of more than 8 images": ((130, 12, 12, 2), (5, 5, 2, 3), 1, "VALID"),
}
UNCHANGED = {
    "narrow, small maps": ((64, 8, 8, 32), (3, 3, 32, 32), 1, "SAME"),
    "narrow, few images": ((31, 16, 16, 8), (3, 3, 8, 8), 1, "SAME"),
    "small maps": ((64, 2, 2, 64), (3, 3, 64, 64), 1, "SAME"),
}
SHAPES = WINOGRAD | IM2COL | PARTS


def random_arrays(shape):
    images, kernel = (jax.random.normal(jax.random.key(i), sides) for i, sides in enumerate(shape[:2]))
    return images, kernel / np.sqrt(kernel[..., 0].size)


def applied(convolve, shape):
    stride, padding = shape[2:]
    return lambda images, kernel: convolve(images, kernel, (stride, stride), padding, dimension_numbers=LAYOUT)


def both(function, shape):
    """Returns the results of `function(convolution)` for our convolution and for that of `lax`."""
    return function(applied(conv_general_dilated, shape)), function(applied(lax.conv_general_dilated, shape))


def assert_close(ours, expected, tolerance=1e-5):
    """Compares in units of the largest element: a sum of products has rounding errors of that size."""
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        assert x.shape == y.shape
        assert x.dtype == y.dtype
        assert float(jnp.max(jnp.abs(x - y))) <= tolerance * float(jnp.max(jnp.abs(y)))


def loss(convolve):
    return lambda images, kernel: jnp.sum(jnp.tanh(convolve(images, kernel)) ** 2)


def primitives(function, *arguments):
    return str(jax.make_jaxpr(function)(*arguments))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_output_and_gradients_equal_those_of_lax(shape):
    arrays = random_arrays(shape)
    assert_close(*both(lambda convolve: jax.jit(convolve)(*arrays), shape))
    assert_close(*both(lambda convolve: jax.jit(jax.grad(loss(convolve), (0, 1)))(*arrays), shape))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_derivatives_of_gradients_equal_those_of_lax(shape):
    arrays = random_arrays(shape)
    tangents = tuple(x[::-1] for x in arrays)

    def products(convolve):
        gradient = jax.grad(loss(convolve), (0, 1))
        forward = jax.jit(lambda: jax.jvp(gradient, arrays, tangents)[1])()
        reverse = jax.jit(lambda: jax.vjp(gradient, *arrays)[1](tangents))()
        return forward, reverse, jax.jit(lambda: jax.jvp(convolve, arrays, tangents)[1])()

    assert_close(*both(products, shape), tolerance=3e-5)


@pytest.mark.parametrize("shape", UNCHANGED.values(), ids=UNCHANGED)
def test_shapes_for_which_lax_is_faster_use_lax(shape):
    arrays = random_arrays(shape)
    for ours, expected in zip(
        *both(lambda convolve: jax.jit(jax.grad(loss(convolve), (0, 1)))(*arrays), shape), strict=True
    ):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("shape", [WINOGRAD["odd sides"], IM2COL["stride 2"]])
def test_faster_programs_are_used(shape):
    """The tests that compare results would pass without this module, so this one compares programs."""
    arrays = random_arrays(shape)
    ours, expected = both(lambda convolve: jax.jit(jax.grad(loss(convolve), 1)).lower(*arrays).as_text(), shape)
    assert ours.count("stablehlo.convolution") < expected.count("stablehlo.convolution")
    assert "stablehlo.dot_general" in ours


@pytest.mark.parametrize(("name", "parts"), [*zip(PARTS, (5, 5, 15), strict=True)])
def test_gradients_of_narrow_kernels_are_sums_over_parts_of_the_batch(name, parts):
    """40 and 36 images make 5 parts of at most 8 images, and 130 images make 15 parts of at most 9."""
    arrays = random_arrays(PARTS[name])
    ours, expected = both(lambda convolve: jax.jit(jax.grad(loss(convolve), 1)).lower(*arrays).as_text(), PARTS[name])
    counts = [text.count("stablehlo.convolution") for text in (ours, expected)]
    assert counts == [1 + parts, 2]


def test_transforms_are_computed_shortly_before_they_are_used(monkeypatch):
    """The gradient of four layers needs less memory than if XLA transformed all kernels at the start of the pass."""
    images, kernel = random_arrays(((2, 16, 16, 128), (3, 3, 128, 128)))

    def temporary_memory():
        def layers(kernels):
            x = images
            for each in kernels:
                x = jnp.tanh(conv_general_dilated(x, each, (1, 1), "SAME", dimension_numbers=LAYOUT))
            return jnp.sum(x)

        compiled = jax.jit(jax.grad(layers)).lower([kernel] * 4).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    ours = temporary_memory()
    monkeypatch.setattr(convolution_products, "_after", lambda other, x: x)
    convolution_products.winograd_output.clear_cache()  # it holds the trace with `_after`
    all_at_the_start = temporary_memory()
    convolution_products.winograd_output.clear_cache()
    assert ours < 0.8 * all_at_the_start


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (4, 1)])
@pytest.mark.parametrize(
    "shape", [WINOGRAD["even"], IM2COL["stride 2"], PARTS["narrow"]], ids=["Winograd", "im2col", "parts"]
)
def test_vmap(shape, axes):
    images, kernel = random_arrays(shape)
    arrays = [
        x if axis is None else jnp.stack([x, -x, 2 * x], axis) for x, axis in zip((images, kernel), axes, strict=True)
    ]
    gradient = lambda convolve: jax.jit(jax.vmap(jax.grad(loss(convolve), (0, 1)), axes))(*arrays)  # noqa: E731
    assert_close(*both(gradient, shape))


def test_scan():
    shape = WINOGRAD["no padding"]
    images, kernel = random_arrays(shape)

    def in_scan(convolve):
        def body(total, part):
            value, gradient = jax.value_and_grad(loss(convolve), 1)(part, kernel)
            return total + value, gradient

        return jax.jit(lambda: lax.scan(body, 0.0, jnp.stack([images, -images])))()

    assert_close(*both(in_scan, shape))


@pytest.mark.parametrize(
    "change",
    [
        lambda options, arrays: (options | {"rhs_dilation": (2, 2)}, arrays),
        lambda options, arrays: (options | {"lhs_dilation": (2, 2)}, arrays),
        lambda options, arrays: (options | {"feature_group_count": 2}, (arrays[0], arrays[1][:, :, :32])),
        lambda options, arrays: (options | {"batch_group_count": 2}, arrays),
        lambda options, arrays: (options | {"precision": lax.Precision.HIGHEST}, arrays),
        lambda options, arrays: (options | {"preferred_element_type": jnp.float64}, arrays),
        lambda options, arrays: (options, [x.astype(jnp.bfloat16) for x in arrays]),
        lambda options, arrays: (options, [x.astype(jnp.float64) for x in arrays]),
        lambda options, arrays: (
            options | {"dimension_numbers": ("NCHW", "OIHW", "NCHW")},
            [arrays[0].transpose(0, 3, 1, 2), arrays[1].transpose(3, 2, 0, 1)],
        ),
    ],
)
def test_other_convolutions_equal_those_of_lax(change):
    with jax.enable_x64(True):
        arrays = random_arrays(((32, 8, 8, 64), (3, 3, 64, 64)))
        options, arrays = change({"dimension_numbers": LAYOUT}, arrays)
        programs = [
            primitives(partial(convolve, window_strides=(1, 1), padding=((1, 1), (1, 1)), **options), *arrays)
            for convolve in (conv_general_dilated, lax.conv_general_dilated)
        ]
    assert programs[0] == programs[1]


@pytest.mark.parametrize("padding", [((-1, 1), (1, 1)), ((2, -2), (0, 0))])
def test_negative_padding_equals_that_of_lax(padding):
    shape = (*WINOGRAD["even"][:3], padding)
    arrays = random_arrays(shape)
    ours, expected = both(lambda convolve: primitives(convolve, *arrays), shape)
    assert ours == expected


@pytest.mark.parametrize("kernel", [(3, 3, 32, 64), (11, 11, 64, 64)])
def test_impossible_shapes_are_handled_as_by_lax(kernel):
    images, kernel = jnp.ones((8, 8, 8, 64)), jnp.ones(kernel)

    def outcome(convolve):
        try:
            return convolve(images, kernel).shape
        except ValueError as error:
            return str(error)

    ours, expected = both(outcome, (None, None, 1, "VALID"))
    assert ours == expected


@pytest.mark.parametrize("strides", [(1, 2), (2, 1)])
def test_unequal_strides_equal_those_of_lax(strides):
    arrays = random_arrays(WINOGRAD["even"])
    ours, expected = (
        primitives(lambda x, y: convolve(x, y, strides, "SAME", dimension_numbers=LAYOUT), *arrays)  # noqa: B023
        for convolve in (conv_general_dilated, lax.conv_general_dilated)
    )
    assert ours == expected


def test_exported_program_runs_on_other_platforms_with_lax():
    shape = WINOGRAD["even"]
    arrays = random_arrays(shape)
    gradient = jax.jit(jax.grad(loss(applied(conv_general_dilated, shape)), (0, 1)))
    exported = export.export(gradient, platforms=("cpu", "cuda"))(*arrays)
    read = export.deserialize(exported.serialize())
    assert_close(read.call(*arrays), jax.grad(loss(applied(lax.conv_general_dilated, shape)), (0, 1))(*arrays))
    on_cuda = export.export(gradient, platforms=("cuda",))(*arrays).mlir_module()
    assert on_cuda.count("stablehlo.convolution") == 3


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_sharded_batch(axis_type):
    shape = WINOGRAD["odd sides"]
    images, kernel = random_arrays(shape)
    expected = jax.grad(loss(applied(lax.conv_general_dilated, shape)), (0, 1))(images, kernel)
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(axis_type,))
    images = jax.device_put(images, NamedSharding(mesh, PartitionSpec("batch")))
    kernel = jax.device_put(kernel, NamedSharding(mesh, PartitionSpec()))
    gradient = jax.grad(loss(applied(conv_general_dilated, shape)), (0, 1))
    with jax.set_mesh(mesh):
        assert_close(jax.jit(gradient)(images, kernel), expected)


def test_shard_map():
    shape = WINOGRAD["odd sides"]
    images, kernel = random_arrays(shape)
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Auto,))
    specs = PartitionSpec("batch"), PartitionSpec()

    gradient = jax.grad(loss(applied(conv_general_dilated, shape)), (0, 1))
    sharded = jax.jit(jax.shard_map(gradient, mesh=mesh, in_specs=specs, out_specs=specs))
    assert_close(
        sharded(images, kernel), jax.grad(loss(applied(lax.conv_general_dilated, shape)), (0, 1))(images, kernel)
    )
