"""Logits of one length, so that a loss tells directions and not scale."""

import jax
import jax.numpy as jnp

_SHORTEST = 1e-10


def normalize_logits(logits: jax.Array) -> jax.Array:
    """Centred logits of length 1, `(z − mean z) / max(‖z − mean z‖, 1e-10)`, example by example.

    Sharpness follows the scale of the logits, which grows on as training goes on and changes no prediction. A loss of
    normalised logits does not know that scale: put this into `loss_fn`. From "A modern look at the relationship between
    sharpness and generalization" (Andriushchenko et al., 2023, https://arxiv.org/abs/2302.07011).

    Args:
      logits: `(batch, classes)`.

    Returns:
      Logits of the same shape and dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> from sam_optax import sharpness
      >>> print(sharpness.normalize_logits(jnp.array([[3.0, 9.0, 6.0]])).round(2))
      [[-0.71  0.71  0.  ]]
    """
    wide = jnp.asarray(logits, jnp.promote_types(jnp.result_type(logits), jnp.float32))
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    squares = jnp.sum(jnp.square(centred), axis=-1, keepdims=True)
    # the maximum is taken of the square: the root has no gradient at zero
    length = jnp.sqrt(jnp.maximum(squares, _SHORTEST**2))
    return (centred / length).astype(jnp.result_type(logits))
