"""How a batch makes an update: whole, or in shards of m examples with a perturbation each."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import sam_optax
from experiments.training.optimizer import Parted

Call = tuple[Any, jax.Array, jax.Array, jax.Array]
"""What the network sees beside its parameters: `(model_state, images, targets, labels)`."""


class Made(NamedTuple):
    """What came of a batch.

    Attributes:
      loss: the clean loss, the mean over the batch.
      error: the fraction of its images that are classified wrongly.
      gradient: the clean one of a whole batch; of a batch in shards, what the base optimizer got.
      updates: of the parameters.
      model_state: after the clean pass.
      opt_state: after the update.
    """

    loss: jax.Array
    error: jax.Array
    gradient: Any
    updates: Any
    model_state: Any
    opt_state: Any


Descend = Callable[[Any, Any, Call, bool | None], Made]
"""`descend(params, opt_state, call, perturb)` → what came of it."""


def whole(model: nnx.Module, tx: optax.GradientTransformationExtraArgs, functional: bool = False) -> Descend:
    """One perturbation for the whole batch.

    Args:
      model: gives the architecture; its variables are not read.
      tx: the optimizer, made by `optimizer.create`.
      functional: whether the second pass is that of Functional SAM.
    """
    forward = _forward(model)
    if functional:
        value_and_grad = sam_optax.functional_value_and_grad(forward, _loss_of, has_aux=True)
    else:
        value_and_grad = sam_optax.value_and_grad(_loss_fn(forward), has_aux=True)

    def descend(params: Any, opt_state: Any, call: Call, perturb: bool | None) -> Made:
        (loss, (error, model_state)), grads, grad_fn = value_and_grad(params, *call)
        updates, opt_state = tx.update(grads, opt_state, params, grad_fn=grad_fn, value=loss, perturb=perturb)
        return Made(loss, error, grads, updates, model_state, opt_state)

    return descend


def in_shards(model: nnx.Module, tx: Parted, m: int) -> Descend:
    """A perturbation for every m examples, whose BatchNorm statistics are their own; batches of up to m stay whole.

    Args:
      model: gives the architecture; its variables are not read. It has no state but BatchNorm's statistics.
      tx: the method and its base optimizer, made by `optimizer.create_parted`.
      m: how many examples a shard has; it divides larger batches.
    """
    loss_fn = _loss_fn(_forward(model))

    def descend(params: Any, opt_state: Any, call: Call, perturb: bool | None) -> Made:
        of_method, of_base = opt_state
        size = m if m < len(call[1]) else None
        parts = {"m": size, "batch_argnums": (1, 2, 3), "has_aux": True}
        gradient = sam_optax.sharpness_aware_grad(loss_fn, tx.estimator, **parts)
        loss, (error, model_state), grads, of_method = gradient(params, of_method, *call, perturb=perturb)
        updates, of_base = tx.base.update(grads, of_base, params)
        return Made(loss, error, grads, updates, model_state, (of_method, of_base))

    return descend


def _forward(model: nnx.Module) -> Callable[..., Any]:
    """The network in training mode: logits, and the error with the state that the pass leaves."""
    model.train()
    graphdef = nnx.graphdef(model)

    def forward(params: Any, model_state: Any, images: jax.Array, targets: jax.Array, labels: jax.Array) -> Any:
        del targets
        moving = nnx.merge(graphdef, params, model_state, copy=True)
        logits = moving(images)
        error = jnp.mean(jnp.argmax(logits, -1) != labels)
        return logits, (error, nnx.as_pure(nnx.state(moving, nnx.Not(nnx.Param))))

    return forward


def _loss_fn(forward: Callable[..., Any]) -> Callable[..., Any]:
    def loss_fn(params: Any, *call: Any) -> Any:
        logits, aux = forward(params, *call)
        return _loss_of(logits, *call), aux

    return loss_fn


def _loss_of(logits: jax.Array, model_state: Any, images: Any, targets: jax.Array, labels: Any) -> jax.Array:
    """Mean cross-entropy with integer targets `(batch,)`, or with those of each class `(batch, classes)`."""
    del model_state, images, labels
    if targets.ndim == 1:
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, targets))
    return jnp.mean(optax.softmax_cross_entropy(logits, targets))
