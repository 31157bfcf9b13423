"""Layers of the networks: attention, patches, stochastic depth, and PyTorch's default initialisers.

Attention is plain or local, and patches are taken of the image alone or of its shifted copies too (Lee et al., 2021,
https://arxiv.org/abs/2112.13492). Stochastic depth drops branches during training (Huang et al., 2016,
https://arxiv.org/abs/1603.09382). The original networks leave initial laws and constants of normalisation to PyTorch.
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
"""What is computed in; None is the dtype of inputs and parameters."""

kernel: Initializer = variance_scaling(1 / 3, "fan_in", "uniform")
"""He's uniform law with a = √5: uniform within ±1/√fan_in (He et al., 2015, https://arxiv.org/abs/1502.01852)."""


def _as_they_are(arrays: Any, /, **_: Any) -> Any:
    """No cast: a normalisation takes statistics, scale and bias as they are kept, and rounds its result alone."""
    return arrays


BatchNorm = partial(nnx.BatchNorm, momentum=0.9, epsilon=1e-5, promote_dtype=_as_they_are)
LayerNorm = partial(nnx.LayerNorm, epsilon=1e-5, promote_dtype=_as_they_are)


def bias(fan_in: int) -> Initializer:
    """The law of a linear layer's bias: uniform within ±1/√fan_in."""
    return partial(jax.random.uniform, minval=-(fan_in**-0.5), maxval=fan_in**-0.5)


class StochasticDepth(nnx.Module):
    """What the branches of a network are multiplied by: 0 at the given rate, else what keeps the expectation.

    The key is a variable of the module, and its count goes up once a pass in training mode, however many branches there
    are. So a step that hands the same variables to both of its passes draws the same in both, and the next step draws
    anew if it gets what the first pass left.

    Args:
      rate: the probability with which a branch is left out, for each example on its own; at 0 there is no key.
      rngs: the source of the key, by its stream `dropout`.

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
        """The factors of a pass, `(branches, examples)`; `(branches, 1)`, and all of them 1, in inference mode."""
        if self.stream is None or self.deterministic:
            return jnp.ones((branches, 1))
        kept = jax.random.bernoulli(self.stream(), 1 - self.rate, (branches, examples))
        return kept / (1 - self.rate)


class TokenLayers(NamedTuple):
    """How the layers of a transformer are made.

    Attributes:
      kernel_init: the initializer of the linear maps.
      dtype: what they compute in; None is that of inputs and parameters.
    """

    kernel_init: Initializer
    dtype: Dtype = None

    def linear(self, width_in: int, width: int, *, use_bias: bool = True, rngs: nnx.Rngs) -> nnx.Linear:
        """A linear map of features."""
        return nnx.Linear(width_in, width, use_bias=use_bias, kernel_init=self.kernel_init, dtype=self.dtype, rngs=rngs)

    def norm(self, width: int, *, rngs: nnx.Rngs) -> nnx.LayerNorm:
        """A LayerNorm of features."""
        return LayerNorm(width, dtype=self.dtype, rngs=rngs)


class SelfAttention(nnx.Module):
    """Attention of tokens to one another, by several heads; query, key and value have no bias.

    In locality self-attention no token attends to itself, and what the products of queries and keys are multiplied by,
    the inverse temperature of the softmax, is learned, one number a head that starts at 1/√(features a head).

    Args:
      width: the features of a token.
      heads: how many heads share them; they divide the width.
      layers: how its linear maps are made. The softmax is in float32.
      is_local: whether it is locality self-attention.
      rngs: the source of the initial parameters.
    """

    def __init__(self, width: int, heads: int, layers: TokenLayers, *, is_local: bool, rngs: nnx.Rngs) -> None:
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.inverse_temperature = nnx.Param(jnp.full(heads, self.scale)) if is_local else None
        self.qkv = layers.linear(width, 3 * width, use_bias=False, rngs=rngs)
        self.out = layers.linear(width, width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Tokens `(batch, tokens, width)` to as many."""
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = jnp.moveaxis(qkv, 2, 0)
        if self.inverse_temperature is None:
            y = jax.nn.dot_product_attention(query, key, value, scale=self.scale)
        else:
            others = ~jnp.eye(tokens, dtype=bool)[None, None]
            query *= self.inverse_temperature[...].astype(query.dtype)[:, None]
            y = jax.nn.dot_product_attention(query, key, value, mask=others, scale=1.0)
        return self.out(y.reshape(batch, tokens, width))


def patches(images: jax.Array, size: int) -> jax.Array:
    """Images `(batch, height, width, channels)` to their patches, row by row, `(batch, patches, size² channels)`.

    Within a patch the rows of pixels follow one another, and the channels of a pixel stand together.
    """
    batch, height, width, channels = images.shape
    grid = images.reshape(batch, height // size, size, width // size, size, channels)
    return grid.swapaxes(2, 3).reshape(batch, -1, size * size * channels)


def shifted(images: jax.Array, distance: int) -> jax.Array:
    """The images with four copies behind their channels, moved by `distance` pixels each way on both diagonals.

    In this order the copies show what lies above to the left, above to the right, below to the left and below to the
    right; beyond the border there are zeros. From "Vision Transformer for Small-Size Datasets" (Lee et al., 2021,
    https://arxiv.org/abs/2112.13492).
    """
    height, width = images.shape[1:3]
    padded = jnp.pad(images, ((0, 0), (distance, distance), (distance, distance), (0, 0)))
    corners = [(y, x) for y in (0, 2 * distance) for x in (0, 2 * distance)]
    return jnp.concatenate([images, *(padded[:, y : y + height, x : x + width] for y, x in corners)], -1)


class PatchTokens(nnx.Module):
    """A linear map of each patch; of shifted patches, normalised, in shifted patch tokenisation.

    Args:
      size: the pixels along a side of a patch.
      channels: of the images.
      width: the features of a token.
      layers: how the map is made.
      is_shifted: whether a patch also holds the image's diagonal shifts by half a patch.
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
        """Images `(batch, height, width, channels)` to tokens `(batch, patches, width)`."""
        if self.patch_norm is None:
            return self.projection(patches(images, self.size))
        return self.projection(self.patch_norm(patches(shifted(images, self.size // 2), self.size)))
