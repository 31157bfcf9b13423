"""The compiled steps: one update, and one batch of an evaluation, as pure functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import sam_optax
from experiments.training.loss_and_update import LossAndUpdate
from experiments.training.optimizer import inject
from sam_optax.nonfinite import is_finite_step
from sam_optax.validation import check_one_method

HALTED = "halted"
"""Among the hyperparameters of a run that stops where a step is not finite: whether an earlier step was not."""

Metrics = dict[str, jax.Array]
Prepare = Callable[[Any, Any], tuple[jax.Array, jax.Array, jax.Array]]


class TrainState(NamedTuple):
    """All that a step changes.

    Attributes:
      params: the parameters.
      model_state: the model's other variables: BatchNorm's statistics.
      opt_state: the optimizer's state, the method's within it.
    """

    params: nnx.State
    model_state: nnx.State
    opt_state: optax.OptState


def initial_state(model: nnx.Module, init: Callable[[Any], Any]) -> TrainState:
    """The state before the first step, as plain arrays; `init` makes the optimizer's.

    Raises:
      ValueError: If the optimizer holds several sharpness-aware methods.
    """
    _, params, model_state = nnx.split(model, nnx.Param, ...)
    params, model_state = nnx.as_pure(params), nnx.as_pure(model_state)
    opt_state = init(params)
    check_one_method("init", opt_state)
    return TrainState(params, model_state, opt_state)


def train_step(
    descend: LossAndUpdate,
    prepare: Prepare,
    keep: Callable[[TrainState], TrainState] = lambda state: state,
    *,
    skips_nonfinite: bool = False,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """The compiled update.

    Args:
      descend: what makes an update of a batch, from `descent`.
      prepare: `prepare(batch, constants)` → float images, their targets and their labels: augmentation,
        normalisation, mixing.
      keep: `Sharding.kept`, so that the state stays where it lies.
      skips_nonfinite: whether a step that is not finite leaves the whole state as it was, and says so in the metrics,
        under `skipped`.

    Returns:
      `step(state, batch, hyperparameters, constants, perturb=None)` → `(state, metrics)`; it takes over the buffers of
      `state`. The hyperparameters are those of `optimizer.create`, and `halted`, where a step is to be skipped whatever
      comes; `constants` is what stays the same through a run; `perturb` is static, as `sam_optax.sharpness_aware` has
      it.
    """

    def step(
        state: TrainState, batch: Any, hyperparameters: Any, constants: Any, perturb: bool | None = None
    ) -> tuple[TrainState, Metrics]:
        params, model_state, opt_state = state
        hyperparameters, halted = without_halt(hyperparameters)
        seen = (model_state, *prepare(batch, constants))
        made = descend(params, inject(opt_state, hyperparameters), seen, perturb)
        metrics = {"loss": made.loss, "error": made.error} | gradient_metrics(made.gradient, made.opt_state, perturb)
        after = TrainState(optax.apply_updates(params, made.updates), made.model_state, made.opt_state)
        if skips_nonfinite:
            after, metrics["skipped"] = if_finite(after, state, (made.loss, made.gradient, made.updates), halted)
        return keep(after), metrics

    return jax.jit(step, donate_argnums=0, static_argnames="perturb")


def unhalted(state: TrainState) -> Any:
    """The value of `halted` for the first step: False, on the devices of a step's own answer, so that it compiles once.

    On several devices, and where the state was restored, that is an array on all of its devices.
    """
    like = next(leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim == 0)
    if not like.committed:
        return np.bool_(False)
    return jax.make_array_from_callback((), like.sharding, lambda index: np.zeros((), bool))


def without_halt(hyperparameters: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The hyperparameters of the optimizer alone, and whether the step is to be skipped whatever comes."""
    return {name: value for name, value in hyperparameters.items() if name != HALTED}, hyperparameters.get(HALTED)


def if_finite(after: TrainState, before: TrainState, numbers: Any, halted: Any = None) -> tuple[TrainState, jax.Array]:
    """The state after a step if all of it is finite, else that before it.

    Args:
      after: the step's.
      before: with the optimizer's state as it was, hyperparameters and all.
      numbers: what has to be finite in addition to the state: loss, gradient and updates.
      halted: whether the step is to be skipped whatever comes.

    Returns:
      The state, and whether the step was skipped.
    """
    finite = is_finite_step(numbers, after, before)
    if halted is not None:
        finite &= ~halted
    return jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, before), ~finite


def evaluation_step(model: nnx.Module, prepare: Callable[[Any, Any], jax.Array]) -> Callable[..., Metrics]:
    """The compiled evaluation of one batch, BatchNorm in inference mode.

    Args:
      model: gives the architecture; its variables are not read.
      prepare: `prepare(batch, constants)` → float images; normalisation alone.

    Returns:
      `step(params, model_state, batch, constants)` → the sums of `loss` and `error` over the batch, each example times
      its weight.
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


def gradient_metrics(gradient: Any, opt_state: Any, perturb: bool | None) -> Metrics:
    """What the method measured, and the norm of the clean gradient, which a skipped step does not measure."""
    try:
        seen = sam_optax.diagnostics(opt_state)._asdict()
    except ValueError:
        return {"grad_norm": optax.tree.norm(gradient)}
    if not perturb:
        seen["grad_norm"] = optax.tree.norm(gradient)
    return seen
