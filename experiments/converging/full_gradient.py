"""The gradient of a network's training loss over all examples, and its SAM gradient."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.sharpness.measures import Batch, Network


class FullNorms(NamedTuple):
    """Norms over all examples.

    Attributes:
      loss: `L_S(w)`, the mean cross-entropy.
      grad_norm: `‖∇L_S(w)‖`.
      sam_grad_norm: `‖∇L_S(w + ρ ∇L_S/‖∇L_S‖)‖`.
    """

    loss: float
    grad_norm: float
    sam_grad_norm: float


def full_norms(network: Network, rho: float) -> FullNorms:
    """Both norms of a network in inference mode, by the parameters alone; one gradient a batch and norm.

    Args:
      network: its parameters, its loss and the batches; each batch weighs as many examples as it has.
      rho: the radius of the SAM gradient, in units of the parameters' ℓ2 norm.
    """
    params = network.variables["params"]
    loss, gradient = _full(network, params)
    norm = optax.tree.norm(gradient)
    scale = rho / jnp.where(norm > 0, norm, 1)
    _, sam_gradient = _full(network, jax.tree.map(lambda w, g: w + scale * g, params, gradient))
    return FullNorms(float(loss), float(norm), float(optax.tree.norm(sam_gradient)))


def _full(network: Network, params: Any) -> tuple[jax.Array, Any]:
    """The loss and its gradient over all batches."""
    variables = network.variables | {"params": params}
    sizes = [len(batch["label"]) for batch in network.batches]
    parts = [_value_and_grad(network.loss_fn, variables, batch) for batch in network.batches]
    return _weighted(parts, [size / sum(sizes) for size in sizes])


@functools.partial(jax.jit, static_argnums=0)
def _value_and_grad(loss_fn: Callable[..., jax.Array], variables: dict[str, Any], batch: Batch) -> Any:
    return jax.value_and_grad(lambda params: loss_fn(variables | {"params": params}, batch))(variables["params"])


def _weighted(trees: Sequence[Any], weights: Sequence[float]) -> Any:
    return jax.tree.map(lambda *parts: sum(w * part for w, part in zip(weights, parts, strict=True)), *trees)
