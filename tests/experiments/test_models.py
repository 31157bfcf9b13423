import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import models
from experiments.models.resnet import BasicBlock, Bottleneck, Layers, ResNet, Stages, WideResNet
from tests.selection import some_of


def abstract(name: str, shape: tuple[int, int, int] = (32, 32, 3), classes: int = 100, **options: Any) -> nnx.Module:
    """A network that has only shapes."""
    return nnx.eval_shape(lambda: models.create(name, classes, shape, nnx.Rngs(0), **options))


def count(model: nnx.Module) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def closed_form_count(channels_in: int, num_classes: int) -> int:
    """The number of parameters of ResNet-8: convolutions with BatchNorm, projections included, and the linear layer."""
    convolutions = [(9 * channels_in, 16), (9 * 16, 16), (9 * 16, 16)]
    for before, after in ((16, 32), (32, 64)):
        convolutions += [(9 * before, after), (9 * after, after), (before, after)]
    return sum(fan * out + 2 * out for fan, out in convolutions) + 64 * num_classes + num_classes


@pytest.mark.parametrize(("shape", "classes"), [((8, 8, 1), 10), ((32, 32, 3), 100)])
def test_small_resnet_is_resnet_8(shape: tuple[int, int, int], classes: int) -> None:
    assert count(abstract("small_resnet", shape, classes)) == closed_form_count(shape[-1], classes)


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        pytest.param("resnet18", {}, 11_220_132, marks=pytest.mark.long),
        ("resnet18", {"stem": "imagenet"}, 11_220_132 + 40 * 3 * 64),
        pytest.param("resnet50", {"stem": "cifar"}, 23_705_252, marks=pytest.mark.long),
        pytest.param("resnet50", {"stem": "imagenet"}, 23_705_252 + 40 * 3 * 64, marks=pytest.mark.long),
        ("wide_resnet28_10", {}, 36_536_884),
        pytest.param("vit_tiny", {}, 2_709_796, marks=pytest.mark.long),
        ("vit_tiny", {"shifted_patches": True, "locality_attention": True, "drop_path": 0.1}, 2_747_248),
        ("vit_small", {"dtype": jnp.bfloat16}, 14_276_068),
        pytest.param(
            "vit_small", {"shifted_patches": True, "locality_attention": True}, 14_350_348, marks=pytest.mark.long
        ),
    ],
)
def test_the_networks_are_as_large_as_the_papers(name: str, options: dict[str, Any], parameters: int) -> None:
    assert count(abstract(name, **options)) == parameters


@pytest.mark.parametrize(("name", "layers", "shapes"), [("small_resnet", 9, 3), ("vit_tiny", 9, 1)])
def test_layers_of_one_shape_are_traced_once(name: str, layers: int, shapes: int) -> None:
    """The BatchNorms of a residual network, and the blocks of a transformer, are calls of few functions."""
    graphdef, state = nnx.split(abstract(name))
    traced = jax.make_jaxpr(lambda state, images: nnx.merge(graphdef, state)(images))(state, jnp.zeros((2, 32, 32, 3)))
    called = [eqn.params["jaxpr"] for eqn in traced.eqns if eqn.params.get("name") == "__call__"]
    assert len(called) == layers
    assert len(set(map(id, called))) == shapes


@some_of(models.NAMES, quick=("small_resnet", "resnet18", "vit_tiny"))
def test_every_network_maps_images_to_logits(name: str) -> None:
    model = abstract(name, (32, 32, 1), 7)
    logits = nnx.eval_shape(lambda model, images: model(images), model, jnp.zeros((3, 32, 32, 1)))
    assert (logits.shape, logits.dtype) == ((3, 7), jnp.float32)


def test_logits_have_a_row_per_image_and_training_updates_the_statistics() -> None:
    model = models.create("small_resnet", 10, (8, 8, 1), nnx.Rngs(0))
    forward = nnx.jit(lambda model, images: model(images))
    assert forward(model, jax.random.normal(jax.random.key(0), (4, 8, 8, 1))).shape == (4, 10)
    assert not np.allclose(model.norm.mean[...], 0)


@pytest.mark.parametrize(
    ("name", "kernel", "bias"),
    [
        # the results in the README started from these parameters
        ("small_resnet", [0.22820942, -0.21174757, -0.18188128], [0.0628553, 0.00592902, 0.07015562]),
        pytest.param("resnet18", None, [-0.00453682, 0.02407514, -0.02947359], marks=pytest.mark.long),
    ],
)
def test_the_initial_parameters_never_change_between_versions(
    name: str, kernel: list[float] | None, bias: list[float]
) -> None:
    model = models.create(name, 10, (8, 8, 1), nnx.Rngs(0))
    np.testing.assert_allclose(model.head.bias[:3], bias, rtol=1e-6)
    if kernel is not None:
        np.testing.assert_allclose(model.conv.kernel[0, 0, 0, :3], kernel, rtol=1e-6)


def test_resnet_kernels_are_initialised_as_in_pytorch() -> None:
    bottlenecks = ResNet(Stages(Bottleneck, (1, 1), (16, 32)), 10, (8, 8, 3), rngs=nnx.Rngs(0), stem="imagenet")
    small = models.create("small_resnet", 10, (8, 8, 1), nnx.Rngs(0))
    block = bottlenecks.blocks[1]
    layers = (small.blocks[2].conv_2, bottlenecks.conv, block.conv_1, block.conv_2, block.conv_3)
    for layer in (*layers, block.shortcut.layers[0]):
        kernel = np.asarray(layer.kernel[...])
        bound = math.prod(kernel.shape[:-1]) ** -0.5
        assert np.abs(kernel).max() <= bound
        np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.03)
    assert 0 < jnp.abs(small.head.bias[...]).max() <= 64**-0.5


def test_wide_resnet_kernels_are_he_initialised_by_fan_out() -> None:
    model = WideResNet(10, 2, 10, (32, 32, 3), rngs=nnx.Rngs(0))
    for layer in (model.blocks[1].conv_1, model.blocks[2].conv_2, model.blocks[2].shortcut):
        kernel = np.asarray(layer.kernel[...])
        height, width, _, channels = kernel.shape
        np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (height * width * channels)), rtol=0.03)
        assert np.abs(kernel).max() > 3 * kernel.std()  # the distribution is not truncated
    assert np.abs(model.head.kernel[...]).max() <= 128**-0.5
    assert not np.any(model.head.bias[...])


def test_strided_convolutions_are_padded_as_in_pytorch_except_in_small_resnet() -> None:
    """A convolution of ones counts the pixels that its windows see: the first in each direction, 2 or 3 of them."""
    images = jnp.ones((1, 4, 4, 1))
    for same_padding, corner in ((False, 4), (True, 9)):
        layer = Layers(same_padding).convolution(1, 1, 3, 2, rngs=nnx.Rngs(0))
        layer.kernel[...] = jnp.ones((3, 3, 1, 1))
        assert layer(images)[0, 0, 0, 0] == corner
    paddings = [abstract(name).blocks[2].conv_1.padding for name in ("small_resnet", "resnet18", "resnet50")]
    assert paddings[0] == "SAME" not in paddings[1:]


def test_a_block_with_a_zero_branch_is_its_shortcut() -> None:
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 8))
    block = BasicBlock(8, 8, 1, Layers(), rngs=nnx.Rngs(0))
    block.norm_2.scale[...] = jnp.zeros(8)
    np.testing.assert_array_equal(block(x), nnx.relu(x))


def test_variables_stay_float32_when_computing_in_bfloat16() -> None:
    networks = [
        models.create("small_resnet", 10, (8, 8, 1), nnx.Rngs(0), dtype=jnp.bfloat16),
        ResNet(Stages(Bottleneck, (1,), (4,)), 10, (8, 8, 1), nnx.Rngs(0), stem="imagenet", dtype=jnp.bfloat16),
        WideResNet(10, 1, 10, (32, 32, 1), rngs=nnx.Rngs(0), dtype=jnp.bfloat16),
    ]
    for model in networks:
        after, logits = nnx.eval_shape(lambda m: (m, m(jnp.zeros((4, 8, 8, 1)))), model)
        assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(after))} == {jnp.dtype("float32")}
        assert logits.dtype == jnp.float32
        activations = nnx.eval_shape(lambda m: m.blocks[0](m.norm(m.conv(jnp.zeros((4, 8, 8, 1))))), networks[0])
        assert activations.dtype == jnp.bfloat16


def test_a_seed_determines_the_network() -> None:
    first, again, other = (
        nnx.state(models.create("small_resnet", 10, (8, 8, 1), nnx.Rngs(seed)), nnx.Param)["head"]["kernel"][...]
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("name", "options", "refusal"),
    [
        ("resnet0", {}, "model is 'resnet0': choose one of small_resnet, .*vit_small"),
        ("resnet18", {"drop_path": 0.1}, "drop_path is 0.1: resnet18 has no such option; it has stem, dtype"),
        ("wide_resnet28_10", {"stem": "cifar"}, "stem is 'cifar': wide_resnet28_10 has .*; it has dtype"),
        ("vit_tiny", {"stem": "cifar"}, "it has shifted_patches, locality_attention, drop_path, dtype"),
        ("resnet50", {"stem": "stanford"}, "stem is 'stanford': give one of cifar, imagenet"),
        ("small_resnet", {"dtype": jnp.int8}, "dtype is .*int8.*: give jnp.float32"),
    ],
)
def test_unknown_networks_and_options_are_refused(name: str, options: dict[str, Any], refusal: str) -> None:
    with pytest.raises(ValueError, match=refusal):
        models.create(name, 10, (8, 8, 1), nnx.Rngs(0), **options)


def test_a_wide_resnet_needs_a_whole_number_of_blocks() -> None:
    with pytest.raises(ValueError, match="depth is 27"):
        WideResNet(27, 1, 10, (32, 32, 3), rngs=nnx.Rngs(0))
