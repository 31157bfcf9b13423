"""A guard against passes that are not finite."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_optax import devices, trees, validation
from sam_optax.method_states import StepDiagnostics
from sam_optax.typing import Params, State, Updates


class SkipNonfiniteState(NamedTuple):
    """The state of `skip_nonfinite`.

    Attributes:
      inner: of the wrapped optimizer.
      skipped: the number of steps that were skipped so far, int32.
      last_finite: whether the last step was made; BatchNorm's statistics of a step that was not are to be dropped.
    """

    inner: State
    skipped: jax.Array
    last_finite: jax.Array


def skip_nonfinite(tx: optax.GradientTransformation, *, axis_name: Any = None) -> optax.GradientTransformationExtraArgs:
    """The optimizer `tx`, except that a step that is not finite moves nothing, `u = 0`, and does not change its state.

    It looks at the gradients going in, at what both passes measured, at the new state and at the final updates. So it
    sees a second pass that overflows even where clipping or a sign behind it makes it finite again.
    (`optax.apply_if_finite` looks at the gradients going in alone.) Diagnostics and counts are those of the last step
    that was made.

    Args:
      tx: the whole optimizer, method and all.
      axis_name: the device axis, or axes, where `tx` gets each device's own gradients, as with `average_over`: a step
        that is not finite on one device is skipped on all.

    Returns:
      An optimizer whose `update` takes what that of `tx` takes.

    Raises:
      ValueError: If `tx` is no transformation; and, in `init`, if it holds several sharpness-aware methods.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_optax
      >>> tx = sam_optax.skip_nonfinite(optax.chain(sam_optax.sam(rho=0.1), optax.sgd(0.1)))
      >>> gradient = jax.grad(lambda w: jnp.sum(jnp.log(w)))
      >>> w = jnp.array([1.0, 0.0])
      >>> updates, state = tx.update(gradient(w), tx.init(w), w, grad_fn=gradient)
      >>> print(updates, state.skipped, state.last_finite)
      [0. 0.] 1 False
    """
    validation.check_transformation("tx", tx)
    inner = optax.with_extra_args_support(tx)

    def init(params: Params) -> SkipNonfiniteState:
        state = inner.init(params)
        validation.check_one_method("tx", state)
        return SkipNonfiniteState(state, jnp.zeros((), jnp.int32), jnp.ones((), bool))

    def update(
        updates: Updates, state: State, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, SkipNonfiniteState]:
        moved, inner_state = inner.update(updates, state.inner, params, **extra_args)
        finite = is_finite_step((updates, moved), inner_state, state.inner)
        finite = finite if axis_name is None else devices.on_all(finite, axis_name)
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), inner_state, state.inner)
        moved = jax.tree.map(lambda x: jnp.where(finite, x, jnp.zeros_like(x)), moved)
        skipped = jnp.where(finite, state.skipped, trees.next_count(state.skipped))
        return moved, SkipNonfiniteState(kept, skipped, finite)

    return optax.GradientTransformationExtraArgs(init, update)


def is_finite_step(numbers: Any, state: State, before: State) -> jax.Array:
    """Whether a step is finite.

    Args:
      numbers: what has to be finite, any pytree: the gradients going in, the final updates, the loss.
      state: after the step: the norm of a second gradient in it has to be finite, too, and what was finite `before`;
        some numbers start as infinity.
      before: the state before the step.

    Returns:
      One bool.
    """
    return _finite(numbers) & _passes_finite(state) & _newly_finite(state, before)


def _finite(tree: Any) -> jax.Array:
    return _all(jnp.isfinite(x) for x in jax.tree.leaves(tree))


def _passes_finite(state: State) -> jax.Array:
    """Whether the norm of the second gradient is finite wherever one was measured; a skipped step measures nothing."""
    seen = [node for node in jax.tree.leaves(state, is_leaf=_is_diagnostics) if _is_diagnostics(node)]
    return _all(~each.measured | jnp.isfinite(each.perturbed_grad_norm) for each in seen)


def _newly_finite(state: State, before: State) -> jax.Array:
    """Whether no number in the state has ceased to be finite, what was measured apart; some start as infinity."""
    pairs = zip(*(jax.tree.leaves(_unmeasured(tree)) for tree in (state, before)), strict=True)
    return _all(jnp.isfinite(new) | ~jnp.isfinite(old) for new, old in pairs if trees.is_floating(new))


def _unmeasured(state: State) -> State:
    return jax.tree.map(lambda node: () if _is_diagnostics(node) else node, state, is_leaf=_is_diagnostics)


def _is_diagnostics(node: Any) -> bool:
    return isinstance(node, StepDiagnostics)


def _all(conditions: Iterable[jax.Array]) -> jax.Array:
    return jnp.all(jnp.array([jnp.all(x) for x in conditions], bool))
