"""What a step saw of the landscape: two norms, the angle between the gradients, the length of the offset."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_optax import parts, trees
from sam_optax.typing import Params, State, Updates


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
    found = _all_in(opt_state)
    if len(found) != 1:
        raise ValueError(
            f"opt_state holds {len(found)} sharpness-aware states, expected exactly one: give the state of a chain "
            "with one of sam_optax's methods in it, or the part of the state that belongs to one."
        )
    return Diagnostics(*jax.tree.leaves(found[0]))


def without_diagnostics(method: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """The same updates for less: `method` without its `diagnostics`, which are NaN then.

    The cosine needs both gradients at once. Where the method itself is done with `g` once `ε` is known, as SAM and ASAM
    are, a compiled step without diagnostics lets `g` go before the second pass, and holds one copy of the parameters
    less; where a step takes but a few milliseconds, the norms tell in time, too. GSAM and the other methods that
    combine both gradients hold `g` in any case.

    Args:
      method: a sharpness-aware method, alone or in a chain.

    Returns:
      A transformation that takes what `method` takes, with the same state.

    Raises:
      ValueError: If `method` is no transformation; and, in `init`, if it does not hold exactly one sharpness-aware
        method.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_optax
      >>> loss = lambda w: jnp.sum(w**2) / 2
      >>> w = jnp.array([3.0, 4.0])
      >>> tx = optax.chain(sam_optax.without_diagnostics(sam_optax.sam(rho=1.0)), optax.sgd(0.1))
      >>> updates, state = tx.update(jax.grad(loss)(w), tx.init(w), w, grad_fn=jax.grad(loss))
      >>> print(*(f"{x:.2f}" for x in (*updates, sam_optax.diagnostics(state).cosine)))
      -0.36 -0.48 nan
    """
    parts.check_transformation("method", method)
    inner = optax.with_extra_args_support(method)

    def init(params: Params) -> State:
        state = inner.init(params)
        if (count := len(_all_in(state))) != 1:
            raise ValueError(
                f"method holds {count} sharpness-aware methods, expected exactly one: give one of sam_optax's methods, "
                "or a chain with one in it."
            )
        return state

    def update(
        updates: Updates, state: State, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, State]:
        updates, state = inner.update(updates, state, params, **extra_args)
        # what no step returns, the compiler does not compute
        return updates, jax.tree.map(lambda x: unmeasured(x) if _is_one(x) else x, state, is_leaf=_is_one)

    return optax.GradientTransformationExtraArgs(init, update)


def _all_in(opt_state: Any) -> list[Diagnostics]:
    return [node for node in jax.tree.leaves(opt_state, is_leaf=_is_one) if _is_one(node)]


def _is_one(node: Any) -> bool:
    return isinstance(node, Diagnostics)
