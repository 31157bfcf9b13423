"""Vision transformers for small images (Dosovitskiy et al., 2021, https://arxiv.org/abs/2010.11929).

Shifted patch tokenisation and locality self-attention are options; they follow "Vision Transformer for Small-Size
Datasets" (Lee et al., 2021, https://arxiv.org/abs/2112.13492).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import normal, variance_scaling

from experiments.models.layers import Dtype, ImageShape, PatchTokens, SelfAttention, StochasticDepth, TokenLayers, gelu

_xavier_normal = variance_scaling(1.0, "fan_avg", "normal")  # unlike JAX's `xavier_normal`, it is not truncated


class Size(NamedTuple):
    """The size of a vision transformer.

    Attributes:
      width: the number of features of a token.
      depth: the number of blocks.
      heads: the number of attention heads; it divides the width.
      mlp_ratio: the width of the hidden layer of a block, divided by the width of a token.
      patch: the side of a patch in pixels.
    """

    width: int
    depth: int
    heads: int
    mlp_ratio: int = 2
    patch: int = 4


class Block(nnx.Module):
    """Attention, and two linear layers with a GELU between them; both branches have a LayerNorm and a shortcut."""

    def __init__(self, size: Size, layers: TokenLayers, *, is_local: bool, rngs: nnx.Rngs) -> None:
        hidden = size.mlp_ratio * size.width
        self.attention_norm = layers.norm(size.width, rngs=rngs)
        self.attention = SelfAttention(size.width, size.heads, layers, is_local=is_local, rngs=rngs)
        self.mlp_norm = layers.norm(size.width, rngs=rngs)
        self.mlp_in = layers.linear(size.width, hidden, rngs=rngs)
        self.mlp_out = layers.linear(hidden, size.width, rngs=rngs)

    def __call__(self, x: jax.Array, factors: jax.Array) -> jax.Array:
        """Maps tokens `(batch, tokens, width)` to the same shape; branch factors are `(2, batch)` or `(2, 1)`."""
        of_attention, of_mlp = factors.astype(x.dtype)[:, :, None, None]
        x += of_attention * self.attention(self.attention_norm(x))
        hidden = gelu(self.mlp_in(self.mlp_norm(x)))
        return x + of_mlp * self.mlp_out(hidden)


_apply = nnx.jit(Block.__call__)  # traced once for all blocks of a network; XLA inlines the calls


class ViT(nnx.Module):
    """A vision transformer.

    Patch tokens and a class token, with learned position embeddings, pass through the blocks. A linear layer maps the
    class token to logits.

    Args:
      size: the size of the transformer.
      num_classes: the number of logits.
      image_shape: `(height, width, channels)`; height and width are multiples of the patch size.
      rngs: the source of the initial parameters, and of the keys of stochastic depth.
      shifted_patches: whether a patch includes copies of the image that are shifted by half a patch.
      locality_attention: whether a token attends only to the other tokens, with a learned temperature.
      drop_path: the probability that a branch is dropped in training, for each example. It is the same at all depths,
        as in the original code.
      dtype: the dtype of the computation; None is the dtype of inputs and parameters.

    Raises:
      ValueError: If the patches do not tile the image, or if `drop_path` is not in [0, 1).
    """

    def __init__(
        self,
        size: Size,
        num_classes: int,
        image_shape: ImageShape,
        rngs: nnx.Rngs,
        *,
        shifted_patches: bool = False,
        locality_attention: bool = False,
        drop_path: float = 0.0,
        dtype: Dtype = None,
    ) -> None:
        height, width, channels = image_shape
        if height % size.patch or width % size.patch:
            raise ValueError(f"image_shape is {image_shape}: give sides that are multiples of {size.patch}, the patch.")
        patches = (height // size.patch) * (width // size.patch)
        layers = TokenLayers(_xavier_normal, dtype)
        self.tokens = PatchTokens(size.patch, channels, size.width, layers, is_shifted=shifted_patches, rngs=rngs)
        self.class_token = nnx.Param(normal(1.0)(rngs.params(), (1, 1, size.width)))
        self.positions = nnx.Param(normal(1.0)(rngs.params(), (1, patches + 1, size.width)))
        self.blocks = nnx.List(Block(size, layers, is_local=locality_attention, rngs=rngs) for _ in range(size.depth))
        self.norm = layers.norm(size.width, rngs=rngs)
        self.head = layers.linear(size.width, num_classes, rngs=rngs)
        # created last, so that it does not change the initial parameters
        self.stochastic_depth = StochasticDepth(drop_path, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images `(batch, height, width, channels)` to logits `(batch, num_classes)`, at least float32."""
        x, examples = self.tokens(images), len(images)
        class_token, positions = (v[...].astype(x.dtype) for v in (self.class_token, self.positions))
        x = jnp.concatenate([jnp.tile(class_token, (examples, 1, 1)), x], 1) + positions
        factors = self.stochastic_depth(2 * len(self.blocks), examples)
        for number, block in enumerate(self.blocks):
            x = _apply(block, x, factors[2 * number : 2 * number + 2])
        logits = self.head(self.norm(x[:, 0]))
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
