"""The one transformation: a perturbation, a combiner and a policy make an estimator of the gradient."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sam_optax import devices, masks, measured_pass, parts, trees
from sam_optax.combiners import Combiner
from sam_optax.measured_pass import PerturbedNoise
from sam_optax.method_states import SharpnessAwareState, StepDiagnostics, check_no_method
from sam_optax.policies import Policy, always
from sam_optax.step_diagnostics import measure, nothing_measured
from sam_optax.typing import GradFn, Mask, Params, State, Updates


def sharpness_aware(
    perturbation: optax.GradientTransformation,
    combiner: Combiner,
    when: Policy = always(),
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The sharpness-aware gradient, `combiner(g, g_s)` with `g = ∇L(w)`, `ε = perturbation(g)`, `g_s = ∇L(w + ε)`.

    It precedes any Optax optimizer in a chain; what follows it (clipping, weight decay, momentum) acts on the
    sharpness-aware gradient. `update` takes, in addition to gradients, state and parameters:

    * `grad_fn`: the second pass, from parameters to the gradient on the same batch
      (`sam_optax.value_and_grad` returns it);
    * `perturb`: a static bool or None. True makes the second pass, False skips it and needs no `grad_fn`, None
      asks the policy's traced form. `jax.jit(step, static_argnames="perturb")` called with
      `perturb=policy.at(i)` compiles two steps, of which the skipped one costs one gradient;
    * any other extra argument, which goes on to the perturbation.

    Args:
      perturbation: from the clean gradient to the offset `ε`; any Optax transformation.
      combiner: from both gradients to the one to descend on.
      when: the steps that make a second pass.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one. The others are
        hidden from the perturbation and stay where they are in the second pass; the combiner sees all leaves, and
        all are trained. To freeze some, set their updates to zero behind the method.

    Returns:
      A transformation with extra arguments. The gradients that it returns have the parameters' dtypes.

    Raises:
      ValueError: If `combiner` or `when` has not the functions of its kind, if `mask` is no tree of bools; and,
        in `update`, if `grad_fn` or `params` is missing, or if the trees do not fit one another.

    Example:
      SAM put together by hand, and its first step on `½‖w‖²`:

      >>> import jax, jax.numpy as jnp, optax, sam_optax
      >>> sam = sam_optax.sharpness_aware(sam_optax.normalized_ascent(1.0), sam_optax.perturbed_gradient())
      >>> tx = optax.chain(sam, optax.sgd(0.1))
      >>> w = jnp.array([3.0, 4.0])
      >>> gradient = jax.grad(lambda w: jnp.sum(w**2) / 2)
      >>> updates, state = tx.update(gradient(w), tx.init(w), w, grad_fn=gradient)
      >>> print(*(f"{x:.2f}" for x in updates))
      -0.36 -0.48
    """
    _check_parts(perturbation, combiner, when)
    masks.check("mask", mask)
    ascent = optax.with_extra_args_support(perturbation)

    def init(params: Params) -> SharpnessAwareState:
        trees.check_whole(params)
        trees.check_real(params)
        return SharpnessAwareState(
            count=jnp.zeros((), jnp.int32),
            perturbation=_initial(ascent, params),
            combiner=combiner.init(params),
            policy=when.init(params),
            diagnostics=nothing_measured(params),
        )

    def update(
        updates: Updates,
        state: State,
        params: Params | None = None,
        *,
        grad_fn: GradFn | None = None,
        perturb: bool | None = None,
        **extra_args: Any,
    ) -> tuple[Updates, State]:
        if params is None:
            raise ValueError("params is missing: call update(grads, state, params, grad_fn=grad_fn).")
        _check_call(updates, params, perturb)
        chosen = masks.resolve("mask", mask, params, default=True)
        offset, perturbation_state = ascent.update(
            masks.keep(chosen, updates), state.perturbation, params, **extra_args
        )
        trees.check_alike("What perturbation returned", offset, params, "it maps a gradient to an offset of its shape.")
        offset = masks.keep(chosen, offset)
        decision, policy_state = when.decide(state.count, updates, state.policy)

        def perturbed() -> tuple[Updates, State, StepDiagnostics, PerturbedNoise | None]:
            gradient, noise = _second_pass(grad_fn, params, offset)
            combined, combiner_state = combiner.update(updates, gradient, state.combiner)
            return _returned(combined, params), combiner_state, measure(updates, gradient, offset, params), noise

        def skipped() -> tuple[Updates, State, StepDiagnostics, PerturbedNoise | None]:
            combined, combiner_state = combiner.skipped(updates, state.combiner)
            noise = measured_pass.no_noise(grad_fn, params)
            return _returned(combined, params), combiner_state, nothing_measured(params), noise

        made = _choose(decision if perturb is None else perturb, perturbed, skipped, like=updates)
        combined, combiner_state, seen, noise = made
        measured_pass.record(grad_fn, noise)
        count = trees.next_count(state.count)
        return combined, SharpnessAwareState(count, perturbation_state, combiner_state, policy_state, seen)

    return optax.GradientTransformationExtraArgs(init, update)


def _initial(perturbation: optax.GradientTransformation, params: Params) -> State:
    """The perturbation's state before the first step."""
    state = perturbation.init(params)
    remedy = "give a transformation from a gradient to an offset, as sam_optax.normalized_ascent."
    check_no_method("perturbation", state, remedy)
    return state


def _choose(decision: Any, perturbed: Callable[[], Any], skipped: Callable[[], Any], like: Updates) -> Any:
    """One branch where the decision is known while tracing, since it then costs nothing; else both, by `cond`."""
    if isinstance(decision, bool | np.bool_):
        return perturbed() if decision else skipped()
    branches = [lambda branch=branch: devices.vary_like(branch(), like) for branch in (perturbed, skipped)]
    return jax.lax.cond(decision, *branches)


def _second_pass(grad_fn: GradFn | None, params: Params, offset: Updates) -> tuple[Updates, PerturbedNoise | None]:
    """`∇L(w + ε)`, at parameters of their own dtype, and its noise where that is recorded."""
    if grad_fn is None:
        raise ValueError(
            "grad_fn is missing: call update(grads, state, params, grad_fn=grad_fn) with the function that "
            "sam_optax.value_and_grad returns, or perturb=False for a step without a second pass. An "
            "Optax wrapper without extra arguments, as optax.lookahead, does not pass grad_fn on: call the method by "
            "itself, before it."
        )
    if not callable(grad_fn):
        raise ValueError(f"grad_fn is {grad_fn!r}: give a function from parameters to their gradient.")
    moved = trees.cast_like(jax.tree.map(jnp.add, params, offset), params)
    gradient, noise = measured_pass.gradient_and_noise(grad_fn, moved)
    trees.check_alike(
        "What grad_fn returned", gradient, params, "it maps parameters to their gradient, and nothing else."
    )
    return gradient, noise


def _returned(combined: Updates, params: Params) -> Updates:
    """The combiner's gradient in the parameters' dtypes."""
    trees.check_alike("What combiner returned", combined, params, "it returns a gradient, and its state.")
    return trees.cast_like(combined, params)


def _check_parts(perturbation: Any, combiner: Any, when: Any) -> None:
    parts.check_transformation("perturbation", perturbation)
    parts.check("combiner", combiner, ("init", "update", "skipped"), "a sam_optax.Combiner")
    parts.check("when", when, ("init", "decide", "at"), "a sam_optax.Policy")


def _check_call(updates: Updates, params: Params, perturb: Any) -> None:
    if perturb is not None and not isinstance(perturb, bool | np.bool_):
        raise ValueError(
            f"perturb is {perturb!r}: give True, False or None, and name it in jax.jit(..., "
            'static_argnames="perturb"). A decision inside the compiled step is the policy\'s: when=.'
        )
    trees.check_whole(params)
    trees.check_real(params)
    trees.check_alike("updates", updates, params, "give the gradient with respect to these parameters.")
