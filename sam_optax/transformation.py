"""The general transformation: it combines a perturbation, a combiner and a policy into an estimator of the gradient."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sam_optax import devices, masks, second_pass, trees, validation
from sam_optax.combiners import Combiner
from sam_optax.method_states import AscendingState, SharpnessAwareState, StepDiagnostics, is_ascending
from sam_optax.offset_combiners import OffsetCombiner
from sam_optax.policies import Policy, always
from sam_optax.second_pass import SecondPass
from sam_optax.step_diagnostics import measure, nothing_measured
from sam_optax.typing import Mask, Params, SecondPassFn, State, Updates


def sharpness_aware(
    perturbation: optax.GradientTransformation,
    combiner: Combiner | OffsetCombiner,
    when: Policy = always(),
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The sharpness-aware gradient, `combiner(g, g_s)` with `g = ∇L(w)`, `ε = perturbation(g)`, `g_s = ∇L(w + ε)`.

    It precedes any Optax optimizer in a chain; what follows it (clipping, weight decay, momentum) acts on the
    sharpness-aware gradient. `update` takes, in addition to gradients, state and parameters:

    * `grad_fn`: the second pass, from parameters to the gradient on the same batch: the `sam_optax.GradFn` that
      `sam_optax.value_and_grad` returns, or any other function;
    * `perturb`: a static bool or None. True makes the second pass, False skips it and needs no `grad_fn`, None
      lets the policy's traced form decide. `jax.jit(step, static_argnames="perturb")` called with
      `perturb=policy.at(i)` compiles two steps, of which the skipped one costs one gradient;
    * `value`: the clean loss, a scalar, from which `sam_optax.diagnostics` computes the surrogate gap;
    * any other extra argument.

    The perturbation gets all of them, if it takes extra arguments: `perturb` is then the decision, a bool or a traced
    one, and `grad_fn` does not perturb the leaves that `mask` hides.

    Args:
      perturbation: from the clean gradient to the offset `ε`; any Optax transformation.
      combiner: from both gradients to the one to descend on; an `OffsetCombiner` also reads the loss and the offset.
      when: the steps that make a second pass.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one. The others are
        hidden from the perturbation and are not perturbed in the second pass; the combiner sees all leaves, and
        all are trained. To freeze some, set their updates to zero after the method.

    Returns:
      A transformation with extra arguments. The gradients that it returns have the parameters' dtypes.

    Raises:
      ValueError: If `combiner` or `when` lacks a function of its kind, or if `mask` is not a tree of bools; in `init`,
        if `mask` chooses no leaf; and in `update`, if `grad_fn` or `params` is missing, if the trees do not fit one
        another, or if `value` is not a scalar.

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
    method = _SharpnessAware(optax.with_extra_args_support(perturbation), combiner, when, mask)
    return optax.GradientTransformationExtraArgs(method.init, method.update)


@dataclass(frozen=True)
class _SharpnessAware:
    """The two functions of `sharpness_aware`, and their parts."""

    perturbation: optax.GradientTransformationExtraArgs
    combiner: Combiner | OffsetCombiner
    when: Policy
    mask: Mask | None

    def init(self, params: Params) -> SharpnessAwareState:
        validation.check_whole(params)
        validation.check_real(params)
        masks.check_chosen("mask", self.mask, params)
        perturbation = self.perturbation.init(params)
        remedy = "give a transformation from a gradient to an offset, as sam_optax.normalized_ascent."
        validation.check_no_method("perturbation", perturbation, remedy)
        return SharpnessAwareState(
            count=jnp.zeros((), jnp.int32),
            perturbation=perturbation,
            combiner=self.combiner.init(params),
            policy=self.when.init(params),
            diagnostics=nothing_measured(params),
        )

    def update(
        self,
        updates: Updates,
        state: State,
        params: Params | None = None,
        *,
        grad_fn: SecondPassFn | None = None,
        perturb: bool | None = None,
        value: Any = None,
        **extra_args: Any,
    ) -> tuple[Updates, State]:
        if params is None:
            raise ValueError("params is missing: call update(grads, state, params, grad_fn=grad_fn).")
        _check_call(updates, params, perturb, value)
        decision, policy_state = self.when.decide(state.count, updates, state.policy)
        decision = decision if perturb is None else perturb
        extra_args |= {"perturb": decision} | ({} if value is None else {"value": value})
        if is_ascending(state):
            return updates, self._ascend(updates, state, params, extra_args)
        if not _is_known(decision) or decision:
            _check_grad_fn(grad_fn)
        offset, perturbation_state = self._offset(updates, state, params, extra_args | {"grad_fn": grad_fn})

        def perturbed() -> tuple[Updates, State, StepDiagnostics]:
            found = _second_pass(grad_fn, trees.shifted(params, offset))
            if isinstance(self.combiner, OffsetCombiner):
                combined, combiner_state = self.combiner.update(updates, found, offset, state.combiner)
            else:
                combined, combiner_state = self.combiner.update(updates, found.gradient, state.combiner)
            return _returned(combined, params), combiner_state, measure(updates, found, offset, value, params)

        def skipped() -> tuple[Updates, State, StepDiagnostics]:
            combined, combiner_state = self.combiner.skipped(updates, state.combiner)
            return _returned(combined, params), combiner_state, nothing_measured(params)

        combined, combiner_state, measured = devices.choose(decision, perturbed, skipped, like=updates)
        count = trees.next_count(state.count)
        return combined, SharpnessAwareState(count, perturbation_state, combiner_state, policy_state, measured)

    def _ascend(self, updates: Updates, state: AscendingState, params: Params, extra_args: Any) -> AscendingState:
        """The state with the parameters of the second pass, for `two_phases`."""
        decision = extra_args["perturb"]
        if _is_known(decision) and not decision:
            return state
        offset, _ = self._offset(updates, state, params, extra_args | {"grad_fn": _refuse_further_pass})
        moved = trees.shifted(params, offset)
        if not _is_known(decision):
            moved = jax.tree.map(lambda at, w: jnp.where(decision, at, w), moved, params)
        return state._replace(perturbed_params=moved)

    def _offset(self, updates: Updates, state: Any, params: Params, extra_args: Any) -> tuple[Updates, State]:
        """The offset `ε`, zero in the leaves that the mask hides, and the perturbation's state after it."""
        chosen = masks.resolve("mask", self.mask, params, default=True)
        grad_fn = extra_args["grad_fn"]

        def of_chosen(at: Params) -> Updates:
            kept = jax.tree.map(lambda c, x, w: x if c else w, chosen, at, params)
            return masks.keep(chosen, _second_pass(grad_fn, kept).gradient)

        if self.mask is not None and grad_fn is not None:
            extra_args |= {"grad_fn": of_chosen}
        offset, state = self.perturbation.update(masks.keep(chosen, updates), state.perturbation, params, **extra_args)
        trees.check_alike("What perturbation returned", offset, params, "it maps a gradient to an offset of its shape.")
        return masks.keep(chosen, offset), state


def _second_pass(grad_fn: Any, params: Params) -> SecondPass:
    """The second pass at `params`."""
    found = second_pass.at(params, grad_fn)
    remedy = "it maps parameters to their gradient, and nothing else."
    trees.check_alike("What grad_fn returned", found.gradient, params, remedy)
    return found


def _refuse_further_pass(params: Params) -> Updates:
    del params
    raise ValueError(
        "The perturbation asks for a gradient at another point, and two_phases knows the clean gradient alone: call "
        "update(..., grad_fn=grad_fn) instead."
    )


def _is_known(decision: Any) -> bool:
    """Whether a decision is known while tracing."""
    return isinstance(decision, bool | np.bool_)


def _returned(combined: Updates, params: Params) -> Updates:
    """The combiner's gradient in the parameters' dtypes."""
    trees.check_alike("What combiner returned", combined, params, "it returns a gradient, and its state.")
    return trees.cast_like(combined, params)


def _check_parts(perturbation: Any, combiner: Any, when: Any) -> None:
    validation.check_transformation("perturbation", perturbation)
    validation.check_functions("combiner", combiner, ("init", "update", "skipped"), "a sam_optax.Combiner")
    validation.check_functions("when", when, ("init", "decide", "at"), "a sam_optax.Policy")


def _check_call(updates: Updates, params: Params, perturb: Any, value: Any) -> None:
    if perturb is not None and not _is_known(perturb):
        raise ValueError(
            f"perturb is {perturb!r}: give True, False or None, and name it in jax.jit(..., "
            'static_argnames="perturb"). A decision inside the compiled step is the policy\'s: when=.'
        )
    validation.check_loss("value", value)
    validation.check_whole(params)
    validation.check_real(params)
    trees.check_alike("updates", updates, params, "give the gradient with respect to these parameters.")


def _check_grad_fn(grad_fn: Any) -> None:
    if grad_fn is None:
        raise ValueError(
            "grad_fn is missing: call update(grads, state, params, grad_fn=grad_fn) with the function that "
            "sam_optax.value_and_grad returns, or perturb=False for a step without a second pass. An "
            "Optax wrapper without extra arguments, as optax.lookahead, does not pass grad_fn on: call the method by "
            "itself, before it. Flax's TrainState does not pass it on either: use sam_optax.flax.TrainState."
        )
    if not callable(grad_fn):
        raise ValueError(f"grad_fn is {grad_fn!r}: give a function from parameters to their gradient.")
