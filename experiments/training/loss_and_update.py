"""The loss and the update of a batch, with one perturbation for the batch or one for each shard.

A shard consists of m examples, or of a device's examples.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import sam_optax
from experiments.training.optimizer import Optimizer, Parted
from experiments.training.sharding import AXIS, Sharding

Call = tuple[Any, ...]
"""The inputs of the loss in addition to the parameters: `(model_state, images, targets, labels)`."""


class StepOutput(NamedTuple):
    """The loss and the update of a batch.

    Attributes:
      loss: the clean loss, the mean over the batch.
      error: the fraction of its images that are classified wrongly.
      gradient: the clean gradient of a whole batch; for a batch in shards, the gradient that the base optimizer
        received.
      updates: the updates of the parameters.
      model_state: the model state after the clean pass.
      opt_state: the optimizer state after the update.
    """

    loss: jax.Array
    error: jax.Array
    gradient: Any
    updates: Any
    model_state: Any
    opt_state: Any


Decision = bool | None
"""Whether a step makes a second pass; None if its gradient decides. It is a static argument of the compiled step."""

LossAndUpdate = Callable[[Any, Any, Call, Decision], StepOutput]
"""`descend(params, opt_state, call, perturb)` → `StepOutput`."""


def whole(model: nnx.Module, tx: Optimizer, functional: bool = False, sharding: Sharding = Sharding()) -> LossAndUpdate:
    """Returns the update with one perturbation for the whole batch, whatever the number of devices.

    Args:
      model: defines the architecture; its variables are not read.
      tx: the optimizer, made by `optimizer.create`.
      functional: whether the second pass is that of Functional SAM.
      sharding: the sharding of the state and the batch.
    """
    value_and_grad = passes(model, functional, sharding)

    def descend(params: Any, opt_state: Any, call: Call, perturb: Decision) -> StepOutput:
        (loss, (error, model_state)), grads, grad_fn = value_and_grad(params, *call)
        updates, opt_state = tx.update(grads, opt_state, params, grad_fn=grad_fn, value=loss, perturb=perturb)
        return StepOutput(loss, error, grads, updates, model_state, opt_state)

    return descend


BAYESIAN_SHARDS = 8
"""The number of shards that bSAM divides a batch into, as in its paper."""


def bayesian(model: nnx.Module, tx: Optimizer, seed: int) -> LossAndUpdate:
    """Returns the update of bSAM, whose loss and gradients are those at random points, drawn anew in each step.

    Args:
      model: defines the architecture; its variables are not read. It has no state but BatchNorm's statistics, which are
        averaged over the shards.
      tx: the optimizer, made by `optimizer.create`.
      seed: the seed of the random points.
    """
    loss_fn = _loss_fn(_forward(model), jax.tree.leaves)

    def descend(params: Any, opt_state: Any, call: Call, perturb: Decision) -> StepOutput:
        del perturb  # every step makes both passes
        key = jax.random.fold_in(jax.random.key(seed), opt_state.count)
        value_and_grad = sam_optax.bsam_value_and_grad(
            loss_fn, opt_state.hyperparams["rho"], BAYESIAN_SHARDS, batch_argnums=(1, 2, 3), has_aux=True
        )
        (loss, (error, statistics)), grads, magnitude = value_and_grad(params, opt_state, key, *call)
        model_state = jax.tree.unflatten(jax.tree.structure(call[0]), statistics)
        updates, opt_state = tx.update(grads, opt_state, params, magnitude=magnitude)
        return StepOutput(loss, error, grads, updates, model_state, opt_state)

    return descend


def passes(model: nnx.Module, functional: bool = False, sharding: Sharding = Sharding()) -> Callable[..., Any]:
    """Returns `passes(params, *call)` → `((loss, (error, model_state)), gradient, grad_fn)`.

    `loss` and `gradient` are those of the first pass; `grad_fn` computes the second pass.

    Args:
      model: defines the architecture; its variables are not read.
      functional: whether the second pass is that of Functional SAM.
      sharding: the sharding of the parameters and the batch.
    """
    forward = _forward(model, sharding.gathered)
    if functional:
        return sam_optax.functional_value_and_grad(forward, _loss_of, has_aux=True)
    return sam_optax.value_and_grad(_loss_fn(forward), has_aux=True)


def model_loss(model: nnx.Module) -> Callable[..., Any]:
    """Returns `loss_fn(params, *call)` → `(loss, (error, model_state))`, in training mode.

    Args:
      model: defines the architecture; its variables are not read.
    """
    return _loss_fn(_forward(model))


def in_shards(model: nnx.Module, tx: Parted, m: int | None = None, sharding: Sharding = Sharding()) -> LossAndUpdate:
    """Returns the update with one perturbation for every shard of m examples, or for the examples of each device.

    BatchNorm's statistics are computed for each shard separately. A batch of at most m examples is not split. If a
    device's part of a batch consists of whole shards, the device processes them alone, and gradients are averaged over
    the devices once. If a shard lies on several devices, the devices process it together. With a given m the result
    is the same in both cases: it does not depend on the number of devices.

    Args:
      model: defines the architecture; its variables are not read. It has no state but BatchNorm's statistics.
      tx: the method and its base optimizer, made by `optimizer.create_parted`.
      m: the number of examples in a shard; it divides the size of any larger batch. None: a shard is the part of the
        batch on one device.
      sharding: the sharding of the state and the batch.
    """
    # The model state is averaged over the shards: passed from shard to shard, it would depend on the number of devices.
    together = _loss_fn(_forward(model, sharding.gathered), jax.tree.leaves)
    apart = _loss_fn(_forward(model), jax.tree.leaves)

    def gradient(examples: int, perturb: Decision) -> Callable[..., Any]:
        is_own = sharding.has_own_shards(m, examples)
        loss_fn, axis = (apart, AXIS) if is_own else (together, None)
        shard = m if m is not None and m < examples else None
        of_shards = sam_optax.sharpness_aware_grad(
            loss_fn, tx.estimator, shard, batch_argnums=(1, 2, 3), has_aux=True, axis_name=axis
        )
        decided = partial(of_shards, perturb=perturb)
        return sharding.on_each_device(decided, batches=(3, 4, 5)) if is_own else decided

    def descend(params: Any, opt_state: Any, call: Call, perturb: Decision) -> StepOutput:
        of_method, of_base = opt_state
        loss, (error, statistics), grads, of_method = gradient(len(call[1]), perturb)(params, of_method, *call)
        model_state = jax.tree.unflatten(jax.tree.structure(call[0]), statistics)
        updates, of_base = tx.base.update(grads, of_base, params)
        return StepOutput(loss, error, grads, updates, model_state, (of_method, of_base))

    return descend


def _forward(model: nnx.Module, whole_params: Callable[[Any], Any] = lambda params: params) -> Callable[..., Any]:
    """Returns the forward pass in training mode, which returns the logits, the error and the model state after it.

    Args:
      model: defines the architecture.
      whole_params: maps the parameters, which may be split over the devices, to those that the network takes.
    """
    model.train()
    graphdef = nnx.graphdef(model)

    def forward(params: Any, model_state: Any, images: jax.Array, _: jax.Array, labels: jax.Array) -> Any:
        moving = nnx.merge(graphdef, whole_params(params), model_state, copy=True)
        logits = moving(images)
        error = jnp.mean(jnp.argmax(logits, -1) != labels)
        return logits, (error, nnx.as_pure(nnx.state(moving, nnx.Not(nnx.Param))))

    return jax.jit(forward, inline=True)  # traced once for both passes: compilation is faster, its result the same


def _loss_fn(forward: Callable[..., Any], state_as: Callable[[Any], Any] = lambda state: state) -> Callable[..., Any]:
    def loss_fn(params: Any, *call: Any) -> Any:
        logits, (error, model_state) = forward(params, *call)
        return _loss_of(logits, *call), (error, state_as(model_state))

    return loss_fn


def _loss_of(logits: jax.Array, _model_state: Any, _images: Any, targets: jax.Array, _labels: Any) -> jax.Array:
    """Computes the mean cross-entropy with integer targets `(batch,)` or class probabilities `(batch, classes)`."""
    if targets.ndim == 1:
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, targets))
    return jnp.mean(optax.softmax_cross_entropy(logits, targets))
