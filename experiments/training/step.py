"""The compiled steps, as pure functions: one update, and the evaluation of one batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import sam_optax
from experiments.training.loss_and_update import Decision, LossAndUpdate, StepOutput
from experiments.training.optimizer import inject
from experiments.training.sharding import Sharding
from sam_optax.nonfinite import is_finite_step
from sam_optax.validation import check_one_method

Metrics = dict[str, jax.Array]
Prepare = Callable[[Any, Any], tuple[jax.Array, jax.Array, jax.Array]]


class TrainState(NamedTuple):
    """The training state: everything that a step changes.

    Attributes:
      params: the parameters.
      model_state: the model's other variables: BatchNorm's statistics.
      opt_state: the optimizer's state, which includes the method's.
    """

    params: nnx.State
    model_state: nnx.State
    opt_state: optax.OptState


Stepped = tuple[TrainState, Metrics]
"""The state after a step, and the metrics of the step."""


def initial_state(model: nnx.Module, init: Callable[[Any], Any]) -> TrainState:
    """Returns the state before the first step, as plain arrays; `init` makes the optimizer's state.

    Raises:
      ValueError: If the optimizer holds several sharpness-aware methods.
    """
    _, params, model_state = nnx.split(model, nnx.Param, ...)
    params, model_state = nnx.as_pure(params), nnx.as_pure(model_state)
    opt_state = init(params)
    check_one_method("init", opt_state)
    return TrainState(params, model_state, opt_state)


def train_step(
    descend: LossAndUpdate, prepare: Prepare, sharding: Sharding = Sharding(), *, skips_nonfinite: bool = False
) -> Callable[..., Stepped]:
    """Returns the compiled update.

    Args:
      descend: the function that computes the loss and the update of a batch, from `loss_and_update`.
      prepare: `prepare(batch, constants)` → float images, their targets and their labels, after augmentation,
        normalisation and mixing.
      sharding: the sharding of the state and the batch; a step keeps the sharding of the state.
      skips_nonfinite: whether a step that is not finite keeps the whole state as it was. The metric `skipped` then
        shows whether the step was skipped.

    Returns:
      `step(state, batch, now, constants, halted=None, perturb=None)` → `(state, metrics)`. It donates the buffers of
      `state`. `now` holds the hyperparameters of `optimizer.create`; `constants` does not change during a run; `halted`
      is whether the step is skipped even if it is finite; `perturb` is static, as in
      `sam_optax.sharpness_aware`.
    """

    def step(
        state: TrainState, batch: Any, now: Any, constants: Any, halted: Any = None, *, perturb: Decision = None
    ) -> Stepped:
        call = (state.model_state, *prepare(batch, constants))
        output = descend(state.params, inject(state.opt_state, now), call, perturb)
        after, metrics = finished(state, output, perturb, halted, skips_nonfinite)
        return sharding.kept(after), metrics

    return jax.jit(step, donate_argnums=0, static_argnames="perturb")


def finished(before: TrainState, output: StepOutput, perturb: Decision, halted: Any, skips_nonfinite: bool) -> Stepped:
    """Returns the state after an update and the metrics of the step.

    The metrics are the loss, the error, the norm of the clean gradient, and the diagnostics of the method.

    Args:
      before: the state before the step, including the hyperparameters in the optimizer's state as they were.
      output: the loss and the update.
      perturb: as in the step.
      halted: as in the step.
      skips_nonfinite: whether the result is `before` if the step is not finite or is halted.
    """
    params: Any = optax.apply_updates(before.params, output.updates)
    after = TrainState(params, output.model_state, output.opt_state)
    metrics = {"loss": output.loss, "error": output.error}
    try:
        metrics |= sam_optax.diagnostics(output.opt_state)._asdict()
    except ValueError:  # the optimizer holds no method with diagnostics
        perturb = False
    if not perturb:  # without a second pass the method does not measure the norm
        metrics["grad_norm"] = optax.tree.norm(output.gradient)
    if skips_nonfinite:
        finite = is_finite_step((output.loss, output.gradient, output.updates), after, before)
        if halted is not None:
            finite &= ~halted
        after = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, before)
        metrics["skipped"] = ~finite
    return after, metrics


def unhalted(state: TrainState) -> Any:
    """Returns `halted` for the first step: False, with the sharding of the metric `skipped`, so that jit compiles once.

    On several devices, and if the state was restored, it is an array on all devices of the state.
    """
    like = next(leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim == 0)
    if not like.committed:
        return np.bool_(False)
    return jax.make_array_from_callback((), like.sharding, lambda index: np.zeros((), bool))


def evaluation_step(model: nnx.Module, prepare: Callable[[Any, Any], jax.Array]) -> Callable[..., Metrics]:
    """Returns the compiled evaluation of one batch, with BatchNorm in inference mode.

    Args:
      model: defines the architecture; its variables are not read.
      prepare: `prepare(batch, constants)` → float images, normalised but not augmented.

    Returns:
      `step(params, model_state, batch, constants)` → the sums of `loss` and `error` over the batch, weighted by the
      weight of each example.
    """
    model.eval()
    graphdef = nnx.graphdef(model)

    def step(params: Any, model_state: Any, batch: Any, constants: Any) -> Metrics:
        still = nnx.merge(graphdef, params, model_state, copy=True)
        logits = still(prepare(batch, constants))
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        error = jnp.argmax(logits, -1) != batch["label"]
        return {"loss": jnp.sum(batch["weight"] * loss), "error": jnp.sum(batch["weight"] * error)}

    return jax.jit(step)
