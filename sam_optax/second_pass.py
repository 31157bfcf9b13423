"""The second pass of a step as a function of the parameters: `GradFn`."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from sam_optax.noise_scale import NoiseTerms
from sam_optax.typing import Params, SecondPassFn, Updates


class SecondPass(NamedTuple):
    """The result of a second pass.

    Attributes:
      gradient: the gradient of the loss at the given parameters, in their dtypes.
      loss: the unscaled loss at the given parameters, a scalar, averaged over parts and devices. None if it is unknown.
      noise: the noise of the gradient; None unless it is measured.
    """

    gradient: Updates
    loss: jax.Array | None = None
    noise: NoiseTerms | None = None


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["arguments", "clean_noise"], meta_fields=["second_pass"]
)
@dataclass(frozen=True, eq=False)
class GradFn:
    """The second pass on the batch of the first one: `grad_fn(w) = ∇L(w)`.

    `sam_optax.value_and_grad` and its relatives return it, and `update` takes it as `grad_fn=`. It is a pytree whose
    leaves are the arguments of the loss, so it can be passed into and out of a `jax.jit` function without
    recompilation if all arguments are arrays. `jax.jit` would trace a Python flag, which a loss that branches on it
    does not accept: bind it with `functools.partial(loss, train=True)`. Call the `GradFn` of `sam_optax.flax` or
    `sam_optax.equinox` in the compiled function that made it. `update` also accepts any other function that maps
    parameters to their gradient. Such a function does not return the loss, so `sam_optax.diagnostics` then reports no
    perturbed loss.

    Attributes:
      second_pass: `second_pass(params, *arguments)` → `SecondPass`.
      arguments: the arguments of the second pass after the parameters. Each is a pytree.
      clean_noise: the noise of the clean gradient; None unless it is measured.

    Example:
      >>> import jax.numpy as jnp, sam_optax
      >>> value_and_grad = sam_optax.value_and_grad(lambda w, x: jnp.sum(x * w**2))
      >>> loss, grads, grad_fn = value_and_grad(jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0]))
      >>> print(grad_fn(jnp.array([0.0, 1.0])))
      [0. 8.]
      >>> gradient, perturbed_loss, noise = grad_fn.measured(jnp.array([0.0, 1.0]))
      >>> print(perturbed_loss, noise)
      4.0 None
    """

    second_pass: Callable[..., SecondPass]
    arguments: tuple[Any, ...]
    clean_noise: NoiseTerms | None = None

    def __call__(self, params: Params) -> Updates:
        """The gradient at `params`."""
        return self.measured(params).gradient

    def measured(self, params: Params) -> SecondPass:
        """The gradient at `params`, with the loss and the noise from the same pass.

        Args:
          params: the parameters at which the pass is made, a tree like those of the first pass.

        Returns:
          `(gradient, loss, noise)`; `noise` is None unless the first pass also measured it.

        Raises:
          ValueError: If the shapes of `params` differ from those of the first pass.
        """
        return self.second_pass(params, *self.arguments)


def given(params: Params, gradient: Updates, loss: jax.Array | None) -> SecondPass:
    """The result of a second pass that the caller has already made at `params`."""
    del params
    return SecondPass(gradient, loss)


def at(params: Params, grad_fn: SecondPassFn) -> SecondPass:
    """The result of `grad_fn` at `params`; a function that is not a `GradFn` returns only the gradient."""
    return grad_fn.measured(params) if isinstance(grad_fn, GradFn) else SecondPass(grad_fn(params))
