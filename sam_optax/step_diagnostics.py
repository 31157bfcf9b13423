"""What a step saw of the landscape: two norms, the angle between the gradients, the length of the offset."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sam_optax import trees
from sam_optax.typing import Params, Updates


class Diagnostics(NamedTuple):
    """Scalars of the last step, float32 or wider; NaN where it made no second pass.

    Attributes:
      grad_norm: `‖g‖`, of the clean gradient.
      perturbed_grad_norm: `‖g_s‖`, of the gradient at `w + ε`.
      cosine: `⟨g, g_s⟩ / (‖g‖‖g_s‖)`, 0 where one of them is zero.
      perturbation_norm: `‖ε‖`.
    """

    grad_norm: jax.Array
    perturbed_grad_norm: jax.Array
    cosine: jax.Array
    perturbation_norm: jax.Array


def unmeasured(params: Params) -> Diagnostics:
    """The diagnostics of a step that made no second pass."""
    dtype = trees.accumulator_dtype(params)
    # four arrays and not one four times: a buffer can be donated only once
    return Diagnostics(*(jnp.full((), jnp.nan, dtype) for _ in Diagnostics._fields))


def measure(clean: Updates, perturbed: Updates, offset: Updates, params: Params) -> Diagnostics:
    """The diagnostics of a step that made one."""
    norm, perturbed_norm = trees.norm(clean), trees.norm(perturbed)
    product = norm * perturbed_norm
    cosine = trees.inner(clean, perturbed) / jnp.where(product > 0, product, 1)
    dtype = trees.accumulator_dtype(params)
    measured = Diagnostics(norm, perturbed_norm, cosine, trees.norm(offset))
    return Diagnostics(*(x.astype(dtype) for x in measured))


def diagnostics(opt_state: Any) -> Diagnostics:
    """The diagnostics of the last step, found wherever the method stands in a chain.

    A cosine near 1 says that the second pass told nothing new: `ρ` is small for this landscape, or the step
    could be skipped. Where the step was skipped, and before the first one, all four are NaN.

    Args:
      opt_state: the optimizer state of a chain that holds one sharpness-aware transformation.

    Returns:
      `(grad_norm, perturbed_grad_norm, cosine, perturbation_norm)`, four scalars.

    Raises:
      ValueError: If `opt_state` does not hold exactly one sharpness-aware state.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_optax
      >>> loss = lambda w: jnp.sum(w**2) / 2
      >>> w = jnp.array([3.0, 4.0])
      >>> tx = optax.chain(sam_optax.sam(rho=1.0), optax.sgd(0.1))
      >>> _, state = tx.update(jax.grad(loss)(w), tx.init(w), w, grad_fn=jax.grad(loss))
      >>> print(*(f"{x:.1f}" for x in sam_optax.diagnostics(state)))
      5.0 6.0 1.0 1.0
    """
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, Diagnostics))
    found = [node for node in nodes if isinstance(node, Diagnostics)]
    if len(found) != 1:
        raise ValueError(
            f"opt_state holds {len(found)} sharpness-aware states, expected exactly one: give the state of a chain "
            "with one of sam_optax's methods in it, or the part of the state that belongs to one."
        )
    return Diagnostics(*jax.tree.leaves(found[0]))
