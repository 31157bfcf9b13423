import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.models import layers
from experiments.models.layers import SelfAttention, TokenLayers
from experiments.models.vit import Size, ViT

NORMAL = jax.nn.initializers.normal(1.0)


def attention(is_local: bool) -> SelfAttention:
    return SelfAttention(6, 3, TokenLayers(NORMAL), is_local=is_local, rngs=nnx.Rngs(0))


@functools.cache
def wide_vit(**options: Any) -> ViT:
    """One block, wide enough for statistics of its initial parameters."""
    return ViT(Size(96, 1, 3), 10, (64, 64, 3), rngs=nnx.Rngs(0), **options)


def test_patches_go_row_by_row_and_their_pixels_too() -> None:
    pixels = np.array([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]])
    images = np.stack([pixels, 100 + pixels], -1)[None]
    found = layers.patches(jnp.asarray(images), 2)
    assert found.shape == (1, 4, 8)
    np.testing.assert_array_equal(found[0, 1], [2, 102, 3, 103, 6, 106, 7, 107])
    np.testing.assert_array_equal(found[0, 2, ::2], [8, 9, 12, 13])


def test_shifted_copies_contain_the_diagonal_neighbours_and_zeros_outside() -> None:
    images = np.arange(1, 31).reshape(1, 5, 6, 1)
    copies = layers.shifted(jnp.asarray(images), 2)
    neighbours = [copies[0, 2, 3, channel] for channel in range(5)]
    np.testing.assert_array_equal(
        neighbours, [images[0, 2 + y, 3 + x, 0] for y, x in ((0, 0), (-2, -2), (-2, 2), (2, -2), (2, 2))]
    )
    np.testing.assert_array_equal(copies[0, 0, 0, 1:], [0, 0, 0, images[0, 2, 2, 0]])
    assert copies.shape == (1, 5, 6, 5)


def test_local_attention_excludes_the_token_itself() -> None:
    x = jax.random.normal(jax.random.key(0), (1, 2, 6))
    for is_local in (True, False):
        module = attention(is_local)
        # of two tokens, each attends only to the other, so its own value does not matter
        jacobian = jax.jit(jax.jacobian(lambda x, module=module: module(x)[0]))(x)[:, :, 0]
        sees_itself = [np.any(jacobian[token, :, token]) for token in (0, 1)]
        assert sees_itself == [not is_local] * 2
        assert np.any(jacobian[0, :, 1])


def test_the_inverse_temperature_starts_at_plain_attention_and_has_an_effect() -> None:
    module = attention(is_local=True)
    np.testing.assert_allclose(module.inverse_temperature[...], [2**-0.5] * 3, rtol=1e-6)
    x = jax.random.normal(jax.random.key(0), (1, 4, 6))
    warm = module(x)
    module.inverse_temperature[...] = jnp.zeros(3)
    values = (x @ module.qkv.kernel[...])[..., 12:]
    others = (values.sum(1, keepdims=True) - values) / 3  # at infinite temperature, the mean of the other tokens
    np.testing.assert_allclose(module(x), module.out(others), rtol=1e-4, atol=1e-4)
    assert not np.allclose(warm, module(x))


def test_linear_layers_are_xavier_initialised_and_embeddings_standard_normal() -> None:
    model = wide_vit(shifted_patches=True, locality_attention=True)
    block = model.blocks[0]
    assert block.attention.qkv.bias is None
    layers = (model.tokens.projection, block.attention.qkv, block.attention.out, block.mlp_in, block.mlp_out)
    for layer in layers:
        kernel = np.asarray(layer.kernel[...])
        np.testing.assert_allclose(kernel.std(), np.sqrt(2 / sum(kernel.shape)), rtol=0.03)
        assert np.abs(kernel).max() > 3 * kernel.std()  # the distribution is not truncated
        assert layer.bias is None or not np.any(layer.bias[...])
    np.testing.assert_allclose(model.positions[...].std(), 1, rtol=0.02)
    np.testing.assert_allclose(model.class_token[...].std(), 1, rtol=0.2)


def test_each_option_adds_its_variables() -> None:
    plain, shifted, local = wide_vit(), wide_vit(shifted_patches=True), wide_vit(locality_attention=True)
    assert plain.tokens.projection.kernel.shape == (48, 96)
    assert shifted.tokens.projection.kernel.shape == (240, 96)
    assert shifted.tokens.patch_norm.scale.shape == (240,)
    assert local.blocks[0].attention.inverse_temperature.shape == (3,)
    assert plain.blocks[0].attention.inverse_temperature is None
    assert plain.positions.shape == (1, 257, 96)


def test_in_bfloat16_parameters_and_logits_are_float32() -> None:
    options = {"shifted_patches": True, "locality_attention": True}
    exact, rough = (
        ViT(Size(12, 2, 3), 10, (8, 8, 1), rngs=nnx.Rngs(0), dtype=dtype, **options) for dtype in (None, jnp.bfloat16)
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(rough))} == {jnp.dtype("float32")}
    images = jax.random.normal(jax.random.key(0), (4, 8, 8, 1))
    logits = [nnx.jit(lambda model, images: model(images))(model, images) for model in (exact, rough)]
    assert logits[1].dtype == jnp.float32
    np.testing.assert_allclose(*logits, atol=0.1)
    assert np.abs(logits[0] - logits[1]).max() > 1e-4


def test_image_sizes_not_divisible_by_the_patch_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"image_shape is \(8, 10, 1\): give .* multiples of 4"):
        ViT(Size(12, 2, 3), 10, (8, 10, 1), rngs=nnx.Rngs(0))
