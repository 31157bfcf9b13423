"""A wrapper that skips steps with values that are not finite."""

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
      inner: the state of the wrapped optimizer.
      skipped: the number of steps that were skipped so far, int32.
      last_finite: whether the last step was made; if it was skipped, drop the BatchNorm statistics of that step.
    """

    inner: State
    skipped: jax.Array
    last_finite: jax.Array


def skip_nonfinite(tx: optax.GradientTransformation, *, axis_name: Any = None) -> optax.GradientTransformationExtraArgs:
    """The optimizer `tx`, except that a step with values that are not finite has zero updates and keeps the state.

    It checks the incoming gradients, the measurements of both passes, the new state and the final updates. So it
    detects a second pass that overflows even if a later transformation, such as clipping or a sign, makes the update
    finite again. (`optax.apply_if_finite` checks only the incoming gradients.) A method inside `without_diagnostics`
    has no measurements, so a second pass that overflows is then detected only by the state and the final updates.
    Diagnostics and counts are those of the last step that was made.

    Args:
      tx: the complete optimizer, including the method.
      axis_name: the device axis, or axes, if `tx` gets each device's own gradients, as with `average_over`. A step that
        is not finite on one device is then skipped on all.

    Returns:
      An optimizer whose `update` takes the arguments of `tx`.

    Raises:
      ValueError: If `tx` is not a transformation; and, in `init`, if it holds several sharpness-aware methods.

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
      numbers: a pytree of numbers that must be finite: the incoming gradients, the final updates, the loss.
      state: the state after the step. The norm of a second gradient in it must be finite, too, as must all numbers that
        were finite in `before`; some numbers start as infinity.
      before: the state before the step.

    Returns:
      One bool.
    """
    return _finite(numbers) & _passes_finite(state) & _newly_finite(state, before)


def _finite(tree: Any) -> jax.Array:
    return _all(jnp.isfinite(x) for x in jax.tree.leaves(tree))


def _passes_finite(state: State) -> jax.Array:
    """Whether the norms of the second gradients that were measured are finite; a skipped step measures none."""
    found = [node for node in jax.tree.leaves(state, is_leaf=_is_diagnostics) if _is_diagnostics(node)]
    return _all(~each.measured | jnp.isfinite(each.perturbed_grad_norm) for each in found)


def _newly_finite(state: State, before: State) -> jax.Array:
    """Whether all numbers that were finite in `before` still are, without the diagnostics; some start as infinity."""
    pairs = zip(*(jax.tree.leaves(_unmeasured(tree)) for tree in (state, before)), strict=True)
    return _all(jnp.isfinite(new) | ~jnp.isfinite(old) for new, old in pairs if trees.is_floating(new))


def _unmeasured(state: State) -> State:
    return jax.tree.map(lambda node: () if _is_diagnostics(node) else node, state, is_leaf=_is_diagnostics)


def _is_diagnostics(node: Any) -> bool:
    return isinstance(node, StepDiagnostics)


def _all(conditions: Iterable[jax.Array]) -> jax.Array:
    return jnp.all(jnp.array([jnp.all(x) for x in conditions], bool))
