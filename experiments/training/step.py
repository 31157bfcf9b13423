"""The compiled steps: one update, and one batch of an evaluation, as pure functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import sam_optax
from experiments.training.descent import Descend
from experiments.training.optimizer import inject

Metrics = dict[str, jax.Array]
Prepare = Callable[[Any, Any], tuple[jax.Array, jax.Array]]


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
    """The state before the first step, as plain arrays; `init` makes the optimizer's."""
    _, params, model_state = nnx.split(model, nnx.Param, ...)
    params, model_state = nnx.as_pure(params), nnx.as_pure(model_state)
    return TrainState(params, model_state, init(params))


def train_step(descend: Descend, prepare: Prepare) -> Callable[..., tuple[TrainState, Metrics]]:
    """The compiled update.

    Args:
      descend: what makes an update of a batch, from `descent`.
      prepare: `prepare(batch, constants)` → float images and the targets of `batch["label"]`: augmentation,
        normalisation, mixing.

    Returns:
      `step(state, batch, hyperparameters, constants, perturb=None)` → `(state, metrics)`; it takes over the buffers of
      `state`. The hyperparameters are those of `optimizer.create`; `constants` is what stays the same through a run;
      `perturb` is static, as `sam_optax.sharpness_aware` has it.
    """

    def step(
        state: TrainState, batch: Any, hyperparameters: Any, constants: Any, perturb: bool | None = None
    ) -> tuple[TrainState, Metrics]:
        params, model_state, opt_state = state
        images, targets = prepare(batch, constants)
        seen = (model_state, images, targets, batch["label"])
        made = descend(params, inject(opt_state, hyperparameters), seen, perturb)
        metrics = {"loss": made.loss, "error": made.error} | _gradient_metrics(made.gradient, made.opt_state, perturb)
        return TrainState(optax.apply_updates(params, made.updates), made.model_state, made.opt_state), metrics

    return jax.jit(step, donate_argnums=0, static_argnames="perturb")


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


def _gradient_metrics(gradient: Any, opt_state: Any, perturb: bool | None) -> Metrics:
    """What the method measured, and the norm of the clean gradient, which a skipped step does not measure."""
    try:
        seen = sam_optax.diagnostics(opt_state)._asdict()
    except ValueError:
        return {"grad_norm": optax.tree.norm(gradient)}
    if not perturb:
        seen["grad_norm"] = optax.tree.norm(gradient)
    return seen
