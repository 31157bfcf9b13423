"""The compiled steps: one update, and one batch of an evaluation, as pure functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import sam_optax
from experiments.training.optimizer import inject

Metrics = dict[str, jax.Array]
Prepare = Callable[[Any, Any], jax.Array]


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


def initial_state(model: nnx.Module, tx: optax.GradientTransformation) -> TrainState:
    """The state before the first step, as plain arrays."""
    _, params, model_state = nnx.split(model, nnx.Param, ...)
    params, model_state = nnx.as_pure(params), nnx.as_pure(model_state)
    return TrainState(params, model_state, tx.init(params))


def train_step(
    model: nnx.Module, tx: optax.GradientTransformationExtraArgs, prepare: Prepare
) -> Callable[..., tuple[TrainState, Metrics]]:
    """The compiled update.

    Args:
      model: gives the architecture; its variables are not read.
      tx: the optimizer, made by `optimizer.create`.
      prepare: `prepare(batch, constants)` → float images; augmentation and normalisation.

    Returns:
      `step(state, batch, hyperparameters, constants)` → `(state, metrics)`; it takes over the buffers of `state`.
      The hyperparameters are those of `optimizer.create`; `constants` is what stays the same through a run.
    """
    model.train()
    graphdef = nnx.graphdef(model)

    def loss_fn(params: nnx.State, model_state: nnx.State, images: jax.Array, labels: jax.Array) -> Any:
        moving = nnx.merge(graphdef, params, model_state, copy=True)
        logits = moving(images)
        loss = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
        error = jnp.mean(jnp.argmax(logits, -1) != labels)
        return loss, (error, nnx.as_pure(nnx.state(moving, nnx.Not(nnx.Param))))

    value_and_grad = sam_optax.value_and_grad(loss_fn, has_aux=True)

    def step(state: TrainState, batch: Any, hyperparameters: Any, constants: Any) -> tuple[TrainState, Metrics]:
        params, model_state, opt_state = state
        images = prepare(batch, constants)
        value, grads, grad_fn = value_and_grad(params, model_state, images, batch["label"])
        loss, (error, model_state) = value
        opt_state = inject(opt_state, hyperparameters)
        updates, opt_state = tx.update(grads, opt_state, params, grad_fn=grad_fn, value=loss)
        metrics = {"loss": loss, "error": error} | _gradient_metrics(grads, opt_state)
        return TrainState(optax.apply_updates(params, updates), model_state, opt_state), metrics

    return jax.jit(step, donate_argnums=0)


def evaluation_step(model: nnx.Module, prepare: Prepare) -> Callable[..., Metrics]:
    """The compiled evaluation of one batch, BatchNorm in inference mode.

    Args:
      model: gives the architecture; its variables are not read.
      prepare: `prepare(batch, constants)` → float images; normalisation alone.

    Returns:
      `step(state, batch, constants)` → the sums of `loss` and `error` over the batch, each example times its weight.
    """
    model.eval()
    graphdef = nnx.graphdef(model)

    def step(state: TrainState, batch: Any, constants: Any) -> Metrics:
        still = nnx.merge(graphdef, state.params, state.model_state, copy=True)
        logits = still(prepare(batch, constants))
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        error = jnp.argmax(logits, -1) != batch["label"]
        return {"loss": jnp.sum(batch["weight"] * loss), "error": jnp.sum(batch["weight"] * error)}

    return jax.jit(step)


def _gradient_metrics(grads: Any, opt_state: Any) -> Metrics:
    """What the method measured, or for a method without second pass the gradient's norm."""
    try:
        return sam_optax.diagnostics(opt_state)._asdict()
    except ValueError:
        return {"grad_norm": optax.tree.norm(grads)}
