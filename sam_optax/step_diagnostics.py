"""Measures a step: the norms and the cosine of both gradients, the norm of the offset, and the losses."""

import math
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from sam_optax import trees, validation
from sam_optax.method_states import SharpnessAwareState, StepDiagnostics, states_in
from sam_optax.noise_scale import NoiseTerms
from sam_optax.second_pass import SecondPass
from sam_optax.trees import fill_unmeasured
from sam_optax.typing import Params, State, Updates


class Diagnostics(NamedTuple):
    """The measurements of the last step. Each is a scalar in float32 or wider.

    Attributes:
      grad_norm: `‖g‖`, the norm of the clean gradient.
      perturbed_grad_norm: `‖g_s‖`, the norm of the gradient at `w + ε`.
      cosine: `⟨g, g_s⟩ / (‖g‖‖g_s‖)`, or 0 if one of the gradients is zero.
      perturbation_norm: `‖ε‖`, the norm of the perturbation.
      perturbed_loss: `L(w + ε)`, the loss at `w + ε` on the batch of the step.
      surrogate_gap: `L(w + ε) − L(w)`, which GSAM minimises.
    """

    grad_norm: jax.Array
    perturbed_grad_norm: jax.Array
    cosine: jax.Array
    perturbation_norm: jax.Array
    perturbed_loss: jax.Array
    surrogate_gap: jax.Array


def nothing_measured(params: Params) -> StepDiagnostics:
    """The state's diagnostics after a step without a second pass; all are zero."""
    dtype = trees.accumulator_dtype(params)
    # each number has its own array, because a buffer can be donated only once
    zeros = (jnp.zeros((), bool if "measured" in name else dtype) for name in StepDiagnostics._fields)
    return StepDiagnostics(*zeros)


def measure(clean: Updates, found: SecondPass, offset: Updates, value: Any, params: Params) -> StepDiagnostics:
    """The state's diagnostics after a step with a second pass.

    Args:
      clean: the gradient at `w`.
      found: the second pass, at `w + ε`.
      offset: `ε`.
      value: the loss at `w`; None if it was not given.
      params: `w`.
    """
    norm, perturbed_norm = trees.norm(clean), trees.norm(found.gradient)
    cosine = trees.quotient(trees.wide_inner(clean, found.gradient), trees.wide_product(norm, perturbed_norm))
    cosine = jnp.clip(cosine, -1, 1)  # rounding makes it larger than 1 for parallel gradients
    none = nothing_measured(params)
    numbers = {
        "grad_norm": norm,
        "perturbed_grad_norm": perturbed_norm,
        "cosine": cosine,
        "perturbation_norm": trees.norm(offset),
        "measured": True,
    }
    if found.loss is not None:
        numbers |= {"perturbed_loss": found.loss, "loss_measured": True}
    if found.loss is not None and value is not None:
        wide = jnp.promote_types(jnp.result_type(found.loss, value), none.surrogate_gap.dtype)
        gap = jnp.asarray(found.loss, wide) - jnp.asarray(value, wide)
        numbers |= {"surrogate_gap": gap, "gap_measured": True}
    if found.noise is not None:
        signal, noise = found.noise
        numbers |= {"noise_signal": signal, "noise_variance": noise, "noise_measured": True}
    return none._replace(**{name: jnp.asarray(x, getattr(none, name).dtype) for name, x in numbers.items()})


def step_noise(state: Any, before: Any) -> tuple[NoiseTerms | None, Any]:
    """The noise of the last step's second pass, and whether it was measured.

    Args:
      state: an optimizer's state after the step.
      before: the state before it. A wrapper such as `skip_nonfinite` may have restored it; in that case nothing was
        measured.

    Returns:
      The noise terms and a bool. They are None and False if no method in the state makes a second pass.
    """
    for node, old in zip(states_in(state), states_in(before), strict=True):
        if isinstance(node, SharpnessAwareState):
            found = node.diagnostics
            is_measured = found.noise_measured & (node.count != old.count)
            return NoiseTerms(found.noise_signal, found.noise_variance), is_measured
    return None, False


def diagnostics(opt_state: Any, unmeasured: chex.Numeric = math.nan) -> Diagnostics:
    """The diagnostics of the last step, read from the state of a method anywhere in a chain.

    A cosine near 1 means that the second pass found nearly the same gradient: either `ρ` is small for this landscape,
    or the second pass could be omitted. The surrogate gap is the increase of the loss from `w` to `w + ε`. At a fixed
    `ρ`, a smaller gap means a flatter neighbourhood.

    Nothing is measured before the first step, or in a step without a second pass. Only the `grad_fn` of
    `sam_optax.value_and_grad` and its relatives measures the perturbed loss. The gap also needs the clean loss; pass it
    as `value`, as in `update(..., grad_fn=grad_fn, value=loss)`. A measured NaN stays NaN.

    Args:
      opt_state: the optimizer state of a chain that holds one sharpness-aware transformation.
      unmeasured: the number to return if nothing was measured. Use a number other than NaN to read the diagnostics
        inside a compiled function under `jax.debug_nans(True)`.

    Returns:
      `(grad_norm, perturbed_grad_norm, cosine, perturbation_norm, perturbed_loss, surrogate_gap)`, six scalars.

    Raises:
      ValueError: If `opt_state` does not hold exactly one sharpness-aware state, or `unmeasured` is not a number.

    Example:
      >>> import jax.numpy as jnp, optax, sam_optax
      >>> value_and_grad = sam_optax.value_and_grad(lambda w: jnp.sum(w**2) / 2)
      >>> w = jnp.array([3.0, 4.0])
      >>> tx = optax.chain(sam_optax.sam(rho=1.0), optax.sgd(0.1))
      >>> loss, grads, grad_fn = value_and_grad(w)
      >>> _, state = tx.update(grads, tx.init(w), w, grad_fn=grad_fn, value=loss)
      >>> print(*(f"{x:.1f}" for x in sam_optax.diagnostics(state)))
      5.0 6.0 1.0 1.0 18.0 5.5
      >>> print(sam_optax.diagnostics(tx.init(w), unmeasured=0.0).cosine)
      0.0
    """
    validation.check_second_pass("opt_state", opt_state)
    found = next(node.diagnostics for node in states_in(opt_state) if isinstance(node, SharpnessAwareState))
    found = StepDiagnostics(*jax.tree.leaves(found))  # because nnx.Optimizer wraps the state in variables
    flags = {"perturbed_loss": found.loss_measured, "surrogate_gap": found.gap_measured}
    numbers = {
        name: fill_unmeasured(getattr(found, name), flags.get(name, found.measured), unmeasured)
        for name in Diagnostics._fields
    }
    return Diagnostics(**numbers)


def without_diagnostics(method: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Wraps a method so that its `diagnostics` are not measured, to save memory; the updates do not change.

    The cosine needs both gradients at once. If the method does not need `g` after `ε` is known, as in SAM and ASAM, a
    compiled step without diagnostics frees `g` before the second pass. This saves the memory of up to one copy of
    the parameters. If a step takes only a few milliseconds, the norms also cost noticeable time. GSAM and the other
    methods that combine both gradients hold `g` in any case.

    Args:
      method: a sharpness-aware method, alone or in a chain.

    Returns:
      A transformation with the arguments and the state of `method`.

    Raises:
      ValueError: If `method` is not a transformation. `init` raises it if `method` does not hold exactly one
        sharpness-aware method.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_optax
      >>> loss = lambda w: jnp.sum(w**2) / 2
      >>> w = jnp.array([3.0, 4.0])
      >>> tx = optax.chain(sam_optax.without_diagnostics(sam_optax.sam(rho=1.0)), optax.sgd(0.1))
      >>> updates, state = tx.update(jax.grad(loss)(w), tx.init(w), w, grad_fn=jax.grad(loss))
      >>> print(*(f"{x:.2f}" for x in (*updates, sam_optax.diagnostics(state).cosine)))
      -0.36 -0.48 nan
    """
    validation.check_transformation("method", method)
    inner = optax.with_extra_args_support(method)

    def init(params: Params) -> State:
        state = inner.init(params)
        validation.check_second_pass("method", state)
        return state

    def update(
        updates: Updates, state: State, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, State]:
        updates, state = inner.update(updates, state, params, **extra_args)
        # The compiler removes computations whose results no step returns.
        return updates, jax.tree.map(lambda x: _only_noise(x) if _is_one(x) else x, state, is_leaf=_is_one)

    return optax.GradientTransformationExtraArgs(init, update)


def _only_noise(measured: StepDiagnostics) -> StepDiagnostics:
    """The diagnostics with all fields reset except the noise, which `track_noise` needs."""
    noise = {name: getattr(measured, name) for name in ("noise_signal", "noise_variance", "noise_measured")}
    return nothing_measured(measured)._replace(**noise)


def _is_one(node: Any) -> bool:
    return isinstance(node, StepDiagnostics)
