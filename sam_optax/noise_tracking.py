"""The noise scale along training: averaged in the optimizer's state, and found anywhere in a chain."""

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
      method: of the wrapped method.
      clean: averages of the clean gradient's noise.
      perturbed: averages of the perturbed gradient's noise.
    """

    method: State
    clean: NoiseAverage
    perturbed: NoiseAverage


def track_noise(
    method: optax.GradientTransformation | None = None, decay: float = 0.95
) -> optax.GradientTransformationExtraArgs:
    """The method, unchanged, whose state also averages the gradient noise over steps; `measured_noise` reads it.

    It takes no further gradient: the parts of a batch that `value_and_grad(..., micro_batches=k, measure_noise=True)`
    goes through anyway, or those of the devices of its `axis_name`, are the small batches of `noise_terms`, and the
    batch itself is the large one. With `sharpness_aware_grad(..., measure_noise=True)` the shards of m examples are;
    hand what it measured to `update` as `noise=`.

    It wraps the method: `track_noise(gsam())`. In front of it in a chain, as in `chain(track_noise(), gsam())`, it sees
    the clean gradient alone. Where no second pass is made, by the method or because no step asks for one, `perturbed`
    is never measured: read `clean`.

    In the second pass all parts are perturbed by the `ε` of the whole batch. So `perturbed` measures how their
    gradients scatter around that of the batch, given `ε`. The shards of m-SAM have each their own, and are independent.

    The estimate takes the parts, of b examples, as independent, and the gradient of the batch as their mean. Two
    things bias it:

    - One dropout key for all parts. What the masks alone do to the gradient, of variance V an example, is the same in
      all of them: it is missing in `noise`, and adds V/b to `signal`. The scale comes out too small. Give each example
      a key of its own, in an argument that `batch_argnums` names; `sam_optax.flax.value_and_grad` draws anew in each
      micro-batch.
    - BatchNorm, which normalises each part by its own statistics. How these scatter from part to part adds to `noise`
      a term of order 1/b, and `signal` is that of a network with such statistics. As a rule the scale
      comes out too large, the more so the smaller the parts.

    Args:
      method: a method, as `sam_optax.gsam()`, alone or in an `optax.chain`; None: the clean gradient alone is measured.
      decay: how much of the averages is kept from step to step, at least 0 and below 1. They reach about
        `1/(1 − decay)` steps back: where they decide a batch size, let that be no more than the steps of an epoch.

    Returns:
      A transformation whose `update` takes what that of `method` takes, with a `grad_fn` that measures, or `noise=`.

    Raises:
      ValueError: If `method` is no transformation, or `decay` not from 0 to below 1; in `init`, if `method` holds
        several sharpness-aware methods; and, in `update`, if `grad_fn` measures nothing and `noise` is not given, or is
        no `Noise`.

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
        if ascending_in(state.method):  # two_phases asks for w + ε, and no step is made
            updates, method_state = inner.update(updates, state.method, params, **extra_args)
            return updates, TrackNoiseState(method_state, state.clean, state.perturbed)
        clean = _clean_noise(grad_fn) if noise is None else noise.clean
        updates, method_state = inner.update(updates, state.method, params, grad_fn=grad_fn, **extra_args)
        perturbed, measured = step_noise(method_state, state.method) if noise is None else (noise.perturbed, True)
        second = state.perturbed if perturbed is None else state.perturbed.add(perturbed, decay, measured)
        return updates, TrackNoiseState(method_state, state.clean.add(clean, decay), second)

    return optax.GradientTransformationExtraArgs(init, update)


def measured_noise(opt_state: Any, unmeasured: chex.Numeric = math.nan) -> Noise:
    """The averaged noise of both gradients, wherever `track_noise` is in a chain.

    Args:
      opt_state: the optimizer state of a chain that holds one `track_noise`.
      unmeasured: the number to return for terms of which nothing was measured. Give another one than NaN to read the
        noise inside a compiled function under `jax.debug_nans(True)`.

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
    # by leaves, since nnx.Optimizer keeps the state in variables of its own
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
