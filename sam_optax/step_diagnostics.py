"""What a step measured: the norms of both gradients, the cosine of their angle, the length of the offset."""

import math
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from sam_optax import parts, trees
from sam_optax.method_states import SharpnessAwareState, StepDiagnostics, check_one_method, states_in
from sam_optax.typing import Params, State, Updates
from sam_optax.unmeasured import fill


class Diagnostics(NamedTuple):
    """Scalars of the last step, float32 or wider.

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


def nothing_measured(params: Params) -> StepDiagnostics:
    """The state's diagnostics where a step made no second pass: zeros."""
    dtype = trees.accumulator_dtype(params)
    # an array for each number: a buffer can be donated only once
    return StepDiagnostics(*(jnp.zeros((), dtype) for _ in Diagnostics._fields), measured=jnp.zeros((), bool))


def measure(clean: Updates, perturbed: Updates, offset: Updates, params: Params) -> StepDiagnostics:
    """The state's diagnostics where a step made one."""
    norm, perturbed_norm = trees.norm(clean), trees.norm(perturbed)
    product = norm * perturbed_norm
    cosine = trees.inner(clean, perturbed) / jnp.where(product > 0, product, 1)
    dtype = trees.accumulator_dtype(params)
    numbers = (x.astype(dtype) for x in (norm, perturbed_norm, cosine, trees.norm(offset)))
    return StepDiagnostics(*numbers, measured=jnp.ones((), bool))


def diagnostics(opt_state: Any, unmeasured: chex.Numeric = math.nan) -> Diagnostics:
    """The diagnostics of the last step, wherever the method is in a chain.

    A cosine near 1 means that the second pass found nearly the same gradient: `ρ` is small for this landscape, or the
    step could be skipped. Where the step was skipped, and before the first step, nothing was measured. A measured NaN
    stays NaN.

    Args:
      opt_state: the optimizer state of a chain that holds one sharpness-aware transformation.
      unmeasured: the number to return where nothing was measured. Give another one than NaN to read the diagnostics
        inside a compiled function under `jax.debug_nans(True)`.

    Returns:
      `(grad_norm, perturbed_grad_norm, cosine, perturbation_norm)`, four scalars.

    Raises:
      ValueError: If `opt_state` does not hold exactly one sharpness-aware state, or `unmeasured` is not a number.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_optax
      >>> loss = lambda w: jnp.sum(w**2) / 2
      >>> w = jnp.array([3.0, 4.0])
      >>> tx = optax.chain(sam_optax.sam(rho=1.0), optax.sgd(0.1))
      >>> _, state = tx.update(jax.grad(loss)(w), tx.init(w), w, grad_fn=jax.grad(loss))
      >>> print(*(f"{x:.1f}" for x in sam_optax.diagnostics(state)))
      5.0 6.0 1.0 1.0
      >>> print(sam_optax.diagnostics(tx.init(w), unmeasured=0.0).cosine)
      0.0
    """
    _check_measuring("opt_state", opt_state)
    found = next(node.diagnostics for node in states_in(opt_state) if isinstance(node, SharpnessAwareState))
    *numbers, measured = jax.tree.leaves(found)  # by leaves: nnx.Optimizer keeps the state in variables of its own
    return fill(Diagnostics(*numbers), measured, unmeasured)


def without_diagnostics(method: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """The same updates for less memory: `method` without its `diagnostics`, which are not measured then.

    The cosine needs both gradients at once. Where the method itself needs `g` no longer once `ε` is known, as SAM and
    ASAM, a compiled step without diagnostics frees `g` before the second pass, and holds one copy of the parameters
    less. Where a step takes a few milliseconds only, the norms also cost noticeable time. GSAM and the other methods
    that combine both gradients hold `g` in any case.

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
        _check_measuring("method", state)
        return state

    def update(
        updates: Updates, state: State, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, State]:
        updates, state = inner.update(updates, state, params, **extra_args)
        # what no step returns, the compiler does not compute
        return updates, jax.tree.map(lambda x: nothing_measured(x) if _is_one(x) else x, state, is_leaf=_is_one)

    return optax.GradientTransformationExtraArgs(init, update)


def _check_measuring(name: str, state: Any) -> None:
    """Raise `ValueError` unless `state` holds one method, and one that makes a second pass."""
    check_one_method(name, state)
    if not any(isinstance(node, SharpnessAwareState) for node in states_in(state)):
        raise ValueError(
            f"{name} holds no sharpness-aware method with a second pass, expected one: give one of sam_optax's methods "
            "(msam makes no second pass), or a chain with one in it."
        )


def _is_one(node: Any) -> bool:
    return isinstance(node, StepDiagnostics)
