"""Self-attention, plain or local (Lee et al., 2021, https://arxiv.org/abs/2112.13492)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike


class SelfAttention(nnx.Module):
    """Attention of tokens to one another, by several heads; query, key and value have no bias.

    In locality self-attention no token attends to itself, and what the products of queries and keys are multiplied by,
    the inverse temperature of the softmax, is learned, one number a head that starts at 1/√(features a head).

    Args:
      width: the features of a token.
      heads: how many heads share them; they divide the width.
      is_local: whether it is locality self-attention.
      kernel_init: the law of the linear maps.
      dtype: what is computed in; None is that of inputs and parameters. The softmax is in float32.
      rngs: the source of the initial parameters.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        is_local: bool,
        kernel_init: Initializer,
        dtype: DTypeLike | None,
        rngs: nnx.Rngs,
    ) -> None:
        how = {"kernel_init": kernel_init, "dtype": dtype, "rngs": rngs}
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.inverse_temperature = nnx.Param(jnp.full(heads, self.scale)) if is_local else None
        self.qkv = nnx.Linear(width, 3 * width, use_bias=False, **how)
        self.out = nnx.Linear(width, width, **how)

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
