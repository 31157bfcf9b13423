"""Layers of the networks: attention, patches, stochastic depth, and PyTorch's default initialisers.

Attention is standard or local, and patches are taken from the image or from the image and its shifted copies (Lee et
al., 2021, https://arxiv.org/abs/2112.13492). Stochastic depth drops branches during training (Huang et al., 2016,
https://arxiv.org/abs/1603.09382). The original networks use PyTorch's defaults for the initialisers and for the
constants of the normalisation layers.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer, variance_scaling
from jax.typing import DTypeLike

ImageShape = tuple[int, int, int]
"""`(height, width, channels)`."""

Dtype = DTypeLike | None
"""The dtype of the computation; None is the dtype of inputs and parameters."""

kernel: Initializer = variance_scaling(1 / 3, "fan_in", "uniform")
"""He's uniform initialiser with a = √5: uniform within ±1/√fan_in (He et al., 2015, https://arxiv.org/abs/1502.01852).
"""


def _as_they_are(arrays: Any, /, **_: Any) -> Any:
    """Returns the arrays without a cast, so that a normalisation uses the stored dtypes and rounds only its result."""
    return arrays


class _TracedOnce(nnx.BatchNorm):
    """A BatchNorm that JAX traces and differentiates once for all layers of one shape.

    Otherwise two thirds of the operations that are traced for a gradient of ResNet-18 are those of BatchNorm. XLA
    inlines the calls, and the result is the same.
    """

    __call__ = nnx.jit(nnx.BatchNorm.__call__)


BatchNorm = partial(_TracedOnce, momentum=0.9, epsilon=1e-5, promote_dtype=_as_they_are)
LayerNorm = partial(nnx.LayerNorm, epsilon=1e-5, promote_dtype=_as_they_are)


def bias(fan_in: int) -> Initializer:
    """Returns the initialiser of a linear layer's bias: uniform within ±1/√fan_in."""
    return partial(jax.random.uniform, minval=-(fan_in**-0.5), maxval=fan_in**-0.5)


class StochasticDepth(nnx.Module):
    """Draws the factors that the branches of a network are multiplied by.

    A factor is 0 with probability `rate`, and 1 / (1 − rate) otherwise, which preserves the expectation.

    The key is a variable of the module. Its count increases by one per pass in training mode, for any number of
    branches. So a step that passes the same variables to both of its passes draws the same factors in both, and the
    next step draws new factors if it starts from the variables that the first pass returned.

    Args:
      rate: the probability that a branch is dropped, independently for each example; at 0 there is no key.
      rngs: the source of the key; its stream `dropout` is used.

    Raises:
      ValueError: If the rate is not in [0, 1).
    """

    def __init__(self, rate: float, *, rngs: nnx.Rngs) -> None:
        if not 0 <= rate < 1:
            raise ValueError(f"drop_path is {rate}: give a probability of at least 0 and below 1.")
        self.rate = rate
        self.deterministic = False
        self.stream = rngs.dropout.fork() if rate else None

    def __call__(self, branches: int, examples: int) -> jax.Array:
        """Returns the factors of a pass, `(branches, examples)`; in inference or at rate 0, ones `(branches, 1)`."""
        if self.stream is None or self.deterministic:
            return jnp.ones((branches, 1))
        kept = jax.random.bernoulli(self.stream(), 1 - self.rate, (branches, examples))
        return kept / (1 - self.rate)


class TokenLayers(NamedTuple):
    """The settings of a transformer's layers.

    Attributes:
      kernel_init: the initializer of the linear layers.
      dtype: the dtype of the computation; None is the dtype of inputs and parameters.
    """

    kernel_init: Initializer
    dtype: Dtype = None

    def linear(self, width_in: int, width: int, *, use_bias: bool = True, rngs: nnx.Rngs) -> nnx.Linear:
        """Returns a linear layer on the features."""
        return nnx.Linear(width_in, width, use_bias=use_bias, kernel_init=self.kernel_init, dtype=self.dtype, rngs=rngs)

    def norm(self, width: int, *, rngs: nnx.Rngs) -> nnx.LayerNorm:
        """Returns a LayerNorm on the features."""
        return LayerNorm(width, dtype=self.dtype, rngs=rngs)


class SelfAttention(nnx.Module):
    """Multi-head self-attention; query, key and value have no bias.

    In locality self-attention no token attends to itself. The products of queries and keys are multiplied by a learned
    inverse temperature of the softmax, one number per head, with the initial value 1/√(features per head).

    On a CPU, a gradient through these products takes 0.8 times as long as through `jax.nn.dot_product_attention`.

    Args:
      width: the number of features of a token.
      heads: the number of heads; it divides the width.
      layers: the settings of its linear layers. The softmax is computed in float32.
      is_local: whether to use locality self-attention.
      rngs: the source of the initial parameters.
    """

    def __init__(self, width: int, heads: int, layers: TokenLayers, *, is_local: bool, rngs: nnx.Rngs) -> None:
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.inverse_temperature = nnx.Param(jnp.full(heads, self.scale)) if is_local else None
        self.qkv = layers.linear(width, 3 * width, use_bias=False, rngs=rngs)
        self.out = layers.linear(width, width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps tokens `(batch, tokens, width)` to tokens of the same shape."""
        batch, tokens, width = x.shape
        heads = batch, tokens, self.heads, width // self.heads
        query, key, value = (x.reshape(heads).swapaxes(1, 2) for x in jnp.split(self.qkv(x), 3, axis=-1))
        if self.inverse_temperature is None:
            query *= self.scale
        else:
            query *= self.inverse_temperature[...].astype(query.dtype)[:, None, None]
        float32 = jnp.promote_types(query.dtype, jnp.float32)
        logits = jnp.einsum("bnqf,bnkf->bnqk", query, key, preferred_element_type=float32)
        if self.inverse_temperature is not None:
            logits = jnp.where(jnp.eye(tokens, dtype=bool), -jnp.inf, logits)
        weights = jax.nn.softmax(logits).astype(value.dtype)
        y = jnp.einsum("bnqk,bnkf->bnqf", weights, value).swapaxes(1, 2)
        return self.out(y.reshape(batch, tokens, width))


def patches(images: jax.Array, size: int) -> jax.Array:
    """Splits images `(batch, height, width, channels)` into patches, row by row, `(batch, patches, size² channels)`.

    A patch is flattened in the order row, column, channel.
    """
    batch, height, width, channels = images.shape
    grid = images.reshape(batch, height // size, size, width // size, size, channels)
    return grid.swapaxes(2, 3).reshape(batch, -1, size * size * channels)


def shifted(images: jax.Array, distance: int) -> jax.Array:
    """Appends four copies of the images as channels, shifted diagonally by `distance` pixels in both directions.

    In this order, a pixel of the copies shows the pixel above left, above right, below left and below right of it;
    pixels beyond the border are zeros. From "Vision Transformer for Small-Size Datasets" (Lee et al., 2021,
    https://arxiv.org/abs/2112.13492).
    """
    height, width = images.shape[1:3]
    padded = jnp.pad(images, ((0, 0), (distance, distance), (distance, distance), (0, 0)))
    corners = [(y, x) for y in (0, 2 * distance) for x in (0, 2 * distance)]
    return jnp.concatenate([images, *(padded[:, y : y + height, x : x + width] for y, x in corners)], -1)


def gelu(x: jax.Array) -> jax.Array:
    """Returns x Φ(x), where Φ is the distribution function of a standard normal variable, for elements of any shape.

    It computes Φ from erf, as PyTorch does. `jax.nn.gelu` uses erfc, which is more precise for x far below 0, and takes
    2.5 times as long on a CPU.
    """
    return 0.5 * x * (1 + jax.lax.erf(x * 2**-0.5))


class PatchTokens(nnx.Module):
    """Maps each patch to a token with a linear layer.

    In shifted patch tokenisation, a patch includes the shifted copies of the image, and a LayerNorm precedes the linear
    layer.

    Args:
      size: the side of a patch in pixels.
      channels: the number of channels of the images.
      width: the number of features of a token.
      layers: the settings of the layers.
      is_shifted: whether a patch includes copies of the image that are shifted diagonally by half a patch.
      rngs: the source of the initial parameters.
    """

    def __init__(
        self, size: int, channels: int, width: int, layers: TokenLayers, *, is_shifted: bool, rngs: nnx.Rngs
    ) -> None:
        self.size = size
        features = size * size * channels * (5 if is_shifted else 1)
        self.patch_norm = layers.norm(features, rngs=rngs) if is_shifted else None
        self.projection = layers.linear(features, width, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images `(batch, height, width, channels)` to tokens `(batch, patches, width)`."""
        if self.patch_norm is None:
            return self.projection(patches(images, self.size))
        return self.projection(self.patch_norm(patches(shifted(images, self.size // 2), self.size)))
