"""Measures the noise scale during training, and averages it in the optimizer's state."""

import math
from typing import Any, NamedTuple

import chex
import jax
import optax

from sam_optax import hyperparameters, trees, validation
from sam_optax.method_states import ascending_in
from sam_optax.noise_scale import Noise, NoiseAverage, NoiseTerms
from sam_optax.second_pass import GradFn
from sam_optax.step_diagnostics import step_noise
from sam_optax.typing import Params, SecondPassFn, State, Updates


class TrackNoiseState(NamedTuple):
    """The state of `track_noise`.

    Attributes:
      method: the state of the wrapped method.
      clean: averages of the clean gradient's noise.
      perturbed: averages of the perturbed gradient's noise.
    """

    method: State
    clean: NoiseAverage
    perturbed: NoiseAverage


def track_noise(
    method: optax.GradientTransformation | None = None, decay: float = 0.95
) -> optax.GradientTransformationExtraArgs:
    """Wraps a method so that its state also averages the gradient noise over steps; the updates do not change.

    `measured_noise` reads the averages. No additional gradient is computed. The noise is estimated as in `noise_terms`:
    the large batch is the whole batch, and the small batches are the parts of the batch from
    `value_and_grad(..., micro_batches=k, measure_noise=True)`, or the parts on the devices of its `axis_name`. With
    `sharpness_aware_grad(..., measure_noise=True)` the small batches are the shards of m examples; pass the noise that
    it returns to `update` as `noise=`.

    Wrap the method, as in `track_noise(gsam())`. In `chain(track_noise(), gsam())` the transformation precedes the
    method and sees only the clean gradient. If the method makes no second pass, or if no step makes one, `perturbed` is
    never measured; read `clean` instead.

    In the second pass all parts are perturbed by the `ε` of the whole batch. Therefore `perturbed` measures how the
    gradients of the parts vary around the gradient of the batch, given `ε`. Each shard of m-SAM has its own `ε`, so
    shards are independent.

    The estimate assumes that the parts, of b examples each, are independent, and that the gradient of the batch is the
    mean of their gradients. Two cases bias it:

    - All parts share one dropout key. The effect of the masks on the gradient, with variance V per example, is then the
      same in all parts. It is missing in `noise` and adds V/b to `signal`, so the scale is too small. To avoid this,
      give each example its own key in an argument that `batch_argnums` names. `sam_optax.flax.value_and_grad` draws new
      masks in each micro-batch.
    - BatchNorm normalises each part by its own statistics. The variation of these statistics between parts adds a term
      of order 1/b to `noise`, and `signal` is that of a network with such statistics. Usually the scale is too large;
      the bias is larger for smaller parts.

    Args:
      method: a method such as `sam_optax.gsam()`, alone or in an `optax.chain`. If it is None, only the noise of the
        clean gradient is measured.
      decay: the fraction of the averages that is kept from step to step, at least 0 and below 1. The averages cover
        about `1/(1 − decay)` steps. If they determine a batch size, this number should be at most the number of steps
        per epoch.

    Returns:
      A transformation whose `update` takes the arguments of `method`. It requires a `grad_fn` that measures the noise,
      or `noise=`.

    Raises:
      ValueError: If `method` is not a transformation, or if `decay` is not in [0, 1). `init` raises it if `method`
        holds several sharpness-aware methods. `update` raises it if `grad_fn` measures no noise and `noise` is not
        given, or if `noise` is not a `Noise`.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_optax
      >>> loss_fn = lambda w, x: jnp.mean(jnp.sum((w - x) ** 2, -1)) / 2
      >>> value_and_grad = sam_optax.value_and_grad(loss_fn, micro_batches=4, measure_noise=True)
      >>> tx = optax.chain(sam_optax.track_noise(sam_optax.gsam(rho=0.05)), optax.sgd(0.1))
      >>> w = jnp.array([3.0, 4.0])
      >>> loss, grads, grad_fn = value_and_grad(w, jax.random.normal(jax.random.key(0), (32, 2)))
      >>> updates, state = tx.update(grads, tx.init(w), w, grad_fn=grad_fn)
      >>> print(f"{sam_optax.measured_noise(state).clean.scale:.1f}")
      0.1
    """
    if method is not None:
        validation.check_transformation("method", method)
    hyperparameters.check_below_one_number("decay", decay)
    inner = optax.with_extra_args_support(optax.identity() if method is None else method)

    def init(params: Params) -> TrackNoiseState:
        state = inner.init(params)
        validation.check_one_method("method", state)
        clean, perturbed = (NoiseAverage.start(trees.accumulator_dtype(params)) for _ in range(2))
        return TrackNoiseState(state, clean, perturbed)

    def update(
        updates: Updates,
        state: State,
        params: Params | None = None,
        *,
        grad_fn: SecondPassFn | None = None,
        noise: Noise | None = None,
        **extra_args: Any,
    ) -> tuple[Updates, TrackNoiseState]:
        _check_noise(noise)
        if ascending_in(state.method):  # here `two_phases` only computes w + ε, and makes no step
            updates, method_state = inner.update(updates, state.method, params, **extra_args)
            return updates, TrackNoiseState(method_state, state.clean, state.perturbed)
        clean = _clean_noise(grad_fn) if noise is None else noise.clean
        updates, method_state = inner.update(updates, state.method, params, grad_fn=grad_fn, **extra_args)
        perturbed, measured = step_noise(method_state, state.method) if noise is None else (noise.perturbed, True)
        second = state.perturbed if perturbed is None else state.perturbed.add(perturbed, decay, measured)
        return updates, TrackNoiseState(method_state, state.clean.add(clean, decay), second)

    return optax.GradientTransformationExtraArgs(init, update)


def measured_noise(opt_state: Any, unmeasured: chex.Numeric = math.nan) -> Noise:
    """The averaged noise of both gradients, read from the state of a `track_noise` anywhere in a chain.

    Args:
      opt_state: the optimizer state of a chain that holds one `track_noise`.
      unmeasured: the number to return for terms that were not measured. Use a number other than NaN to read the noise
        inside a compiled function under `jax.debug_nans(True)`.

    Returns:
      `(clean, perturbed)`, each `(signal, noise)` with its `scale`.

    Raises:
      ValueError: If `opt_state` does not hold exactly one state of `track_noise`, or `unmeasured` is not a number.

    Example:
      >>> import jax.numpy as jnp, optax, sam_optax
      >>> tx = optax.chain(sam_optax.track_noise(), optax.sgd(0.1))
      >>> w, terms = jnp.zeros(2), sam_optax.NoiseTerms(signal=2.0, noise=64.0)
      >>> _, state = tx.update(w, tx.init(w), w, noise=sam_optax.Noise(clean=terms, perturbed=terms))
      >>> print(sam_optax.measured_noise(state).clean.scale)
      32.0
    """
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, TrackNoiseState))
    found = [node for node in nodes if isinstance(node, TrackNoiseState)]
    if len(found) != 1:
        raise ValueError(
            f"opt_state holds {len(found)} states of track_noise, expected exactly one: give the state of a chain with "
            "sam_optax.track_noise(method) in it."
        )
    # rebuilt from its leaves, because nnx.Optimizer wraps the state in variables
    clean, perturbed = (NoiseAverage(*jax.tree.leaves(average)) for average in found[0][1:])
    return Noise(clean.read(unmeasured), perturbed.read(unmeasured))


def _check_noise(noise: Any) -> None:
    is_noise = (
        isinstance(noise, Noise)
        and isinstance(noise.clean, NoiseTerms)
        and isinstance(noise.perturbed, NoiseTerms | None)
    )
    if noise is not None and not is_noise:
        raise ValueError(
            f"noise is {noise!r}: give sam_optax.Noise(clean=…, perturbed=…), each of it a sam_optax.NoiseTerms "
            "(perturbed may be None), as sam_optax.sharpness_aware_grad(..., measure_noise=True) returns it with aux."
        )


def _clean_noise(grad_fn: Any) -> NoiseTerms:
    if not isinstance(grad_fn, GradFn) or grad_fn.clean_noise is None:
        raise ValueError(
            f"grad_fn is {grad_fn!r}, which measures no noise: call update(..., grad_fn=grad_fn) with the function "
            "that sam_optax.value_and_grad(..., measure_noise=True) returns, in a skipped step, too."
        )
    return grad_fn.clean_noise
