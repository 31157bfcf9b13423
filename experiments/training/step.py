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
    model: nnx.Module, tx: optax.GradientTransformationExtraArgs, prepare: Prepare, functional: bool = False
) -> Callable[..., tuple[TrainState, Metrics]]:
    """The compiled update.

    Args:
      model: gives the architecture; its variables are not read.
      tx: the optimizer, made by `optimizer.create`.
      prepare: `prepare(batch, constants)` → float images; augmentation and normalisation.
      functional: whether the second pass is that of Functional SAM.

    Returns:
      `step(state, batch, hyperparameters, constants, perturb=None)` → `(state, metrics)`; it takes over the buffers of
      `state`. The hyperparameters are those of `optimizer.create`; `constants` is what stays the same through a run;
      `perturb` is static, as `sam_optax.sharpness_aware` has it.
    """
    value_and_grad = _value_and_grad(model, functional)

    def step(
        state: TrainState, batch: Any, hyperparameters: Any, constants: Any, perturb: bool | None = None
    ) -> tuple[TrainState, Metrics]:
        params, model_state, opt_state = state
        images = prepare(batch, constants)
        value, grads, grad_fn = value_and_grad(params, model_state, images, batch["label"])
        loss, (error, model_state) = value
        opt_state = inject(opt_state, hyperparameters)
        updates, opt_state = tx.update(grads, opt_state, params, grad_fn=grad_fn, value=loss, perturb=perturb)
        metrics = {"loss": loss, "error": error} | _gradient_metrics(grads, opt_state, perturb)
        return TrainState(optax.apply_updates(params, updates), model_state, opt_state), metrics

    return jax.jit(step, donate_argnums=0, static_argnames="perturb")


def _value_and_grad(model: nnx.Module, functional: bool) -> Callable[..., Any]:
    """Both passes through the network in training mode: `(loss, (error, model_state))`, the gradient, `grad_fn`."""
    model.train()
    graphdef = nnx.graphdef(model)

    def forward(params: nnx.State, model_state: nnx.State, images: jax.Array, labels: jax.Array) -> Any:
        moving = nnx.merge(graphdef, params, model_state, copy=True)
        logits = moving(images)
        error = jnp.mean(jnp.argmax(logits, -1) != labels)
        return logits, (error, nnx.as_pure(nnx.state(moving, nnx.Not(nnx.Param))))

    def loss_of(logits: jax.Array, model_state: nnx.State, images: jax.Array, labels: jax.Array) -> jax.Array:
        del model_state, images
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

    def loss_fn(params: nnx.State, *call: Any) -> Any:
        logits, aux = forward(params, *call)
        return loss_of(logits, *call), aux

    if functional:
        return sam_optax.functional_value_and_grad(forward, loss_of, has_aux=True)
    return sam_optax.value_and_grad(loss_fn, has_aux=True)


def evaluation_step(
    model: nnx.Module, prepare: Prepare, evaluated: Callable[[Any, Any], Any] = lambda opt_state, params: params
) -> Callable[..., Metrics]:
    """The compiled evaluation of one batch, BatchNorm in inference mode.

    Args:
      model: gives the architecture; its variables are not read.
      prepare: `prepare(batch, constants)` → float images; normalisation alone.
      evaluated: from the optimizer's state and the parameters to those that are evaluated.

    Returns:
      `step(state, batch, constants)` → the sums of `loss` and `error` over the batch, each example times its weight.
    """
    model.eval()
    graphdef = nnx.graphdef(model)

    def step(state: TrainState, batch: Any, constants: Any) -> Metrics:
        still = nnx.merge(graphdef, evaluated(state.opt_state, state.params), state.model_state, copy=True)
        logits = still(prepare(batch, constants))
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        error = jnp.argmax(logits, -1) != batch["label"]
        return {"loss": jnp.sum(batch["weight"] * loss), "error": jnp.sum(batch["weight"] * error)}

    return jax.jit(step)


def _gradient_metrics(grads: Any, opt_state: Any, perturb: bool | None) -> Metrics:
    """What the method measured, and always the norm of the clean gradient."""
    try:
        seen = sam_optax.diagnostics(opt_state)._asdict()
    except ValueError:
        return {"grad_norm": optax.tree.norm(grads)}
    if not perturb:  # a skipped step measures nothing
        seen["grad_norm"] = optax.tree.norm(grads)
    return seen
