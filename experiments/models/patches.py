"""Images as tokens: a linear map of each patch, of the image alone or of its shifted copies beside it."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from experiments.models import pytorch_defaults


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
      is_shifted: whether the image's diagonal shifts by half a patch stand beside it.
      kernel_init: the law of the map.
      dtype: what is computed in; None is that of inputs and parameters.
      rngs: the source of the initial parameters.
    """

    def __init__(
        self,
        size: int,
        channels: int,
        width: int,
        *,
        is_shifted: bool,
        kernel_init: Initializer,
        dtype: DTypeLike | None,
        rngs: nnx.Rngs,
    ) -> None:
        self.size = size
        features = size * size * channels * (5 if is_shifted else 1)
        self.patch_norm = pytorch_defaults.LayerNorm(features, dtype=dtype, rngs=rngs) if is_shifted else None
        self.projection = nnx.Linear(features, width, kernel_init=kernel_init, dtype=dtype, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Images `(batch, height, width, channels)` to tokens `(batch, patches, width)`."""
        if self.patch_norm is None:
            return self.projection(patches(images, self.size))
        return self.projection(self.patch_norm(patches(shifted(images, self.size // 2), self.size)))
