"""A guard against passes that are not finite."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_optax import parts
from sam_optax.typing import Params, State, Updates


class SkipNonfiniteState(NamedTuple):
    """The state of `skip_nonfinite`.

    Attributes:
      inner: of the wrapped optimizer.
      skipped: the steps that were left out so far, int32.
      last_finite: whether the last step was made; BatchNorm's statistics of a step that was not are to be dropped.
    """

    inner: State
    skipped: jax.Array
    last_finite: jax.Array


def skip_nonfinite(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """The optimizer `tx`, but for steps that are not finite: those move nothing, `u = 0`, and leave its state alone.

    It looks at the gradients going in and at the final updates, and so sees the second pass, too.
    (`optax.apply_if_finite` looks at the gradients alone, and lets a second pass that overflows through.) Diagnostics
    and counts are those of the last step made.

    Args:
      tx: the whole optimizer, method and all.

    Returns:
      An optimizer whose `update` takes what that of `tx` takes.

    Raises:
      ValueError: If `tx` is no transformation.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_optax
      >>> tx = sam_optax.skip_nonfinite(optax.chain(sam_optax.sam(rho=0.1), optax.sgd(0.1)))
      >>> gradient = jax.grad(lambda w: jnp.sum(jnp.log(w)))
      >>> w = jnp.array([1.0, 0.0])
      >>> updates, state = tx.update(gradient(w), tx.init(w), w, grad_fn=gradient)
      >>> print(updates, state.skipped, state.last_finite)
      [0. 0.] 1 False
    """
    parts.check_transformation("tx", tx)
    inner = optax.with_extra_args_support(tx)

    def init(params: Params) -> SkipNonfiniteState:
        return SkipNonfiniteState(inner.init(params), jnp.zeros((), jnp.int32), jnp.ones((), bool))

    def update(
        updates: Updates, state: State, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, SkipNonfiniteState]:
        moved, inner_state = inner.update(updates, state.inner, params, **extra_args)
        finite = _all_finite(updates) & _all_finite(moved)
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), inner_state, state.inner)
        moved = jax.tree.map(lambda x: jnp.where(finite, x, jnp.zeros_like(x)), moved)
        skipped = jnp.where(finite, state.skipped, jnp.asarray(optax.safe_increment(state.skipped)))
        return moved, SkipNonfiniteState(kept, skipped, finite)

    return optax.GradientTransformationExtraArgs(init, update)


def _all_finite(tree: Updates) -> jax.Array:
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)], bool))
