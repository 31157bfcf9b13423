"""The perturbed-gradient function: the first pass, and with it the function that makes the second."""

from collections.abc import Callable
from typing import Any

import jax

from sam_optax.typing import GradFn, Params, Updates


def value_and_grad(loss_fn: Callable[..., Any], has_aux: bool = False) -> Callable[..., tuple[Any, Updates, GradFn]]:
    """`jax.value_and_grad` that also returns the second pass, `grad_fn(w) = ∇L(w)` on the same batch.

    The first pass alone gives the loss and the auxiliary output: metrics and BatchNorm's statistics move once
    a step. The second pass has the same arguments after the parameters, dropout keys included, and drops
    its auxiliary output. Under `jax.jit` both passes are compiled into the step.

    Args:
      loss_fn: `loss_fn(params, *args, **kwargs)` → scalar loss, or `(loss, aux)`.
      has_aux: whether `loss_fn` returns `(loss, aux)`.

    Returns:
      A function of the arguments of `loss_fn` that returns `(value, grads, grad_fn)`, where value is the loss or
      `(loss, aux)`. `grad_fn` is itself a pytree of the arguments, and so may be passed into a `jax.jit`.

    Raises:
      ValueError: If `loss_fn` cannot be called.

    Example:
      >>> import jax.numpy as jnp, sam_optax
      >>> value_and_grad = sam_optax.value_and_grad(lambda w, x: jnp.sum(x * w**2))
      >>> loss, grads, grad_fn = value_and_grad(jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0]))
      >>> print(loss, grads, grad_fn(jnp.array([0.0, 1.0])))
      19.0 [ 6. 16.] [0. 8.]
    """
    if not callable(loss_fn):
        raise ValueError(f"loss_fn is {loss_fn!r}: give a function from parameters and a batch to a scalar loss.")
    first_pass = jax.value_and_grad(loss_fn, has_aux=has_aux)
    gradient = jax.grad(loss_fn, has_aux=has_aux)

    def second_pass(args: tuple[Any, ...], kwargs: dict[str, Any], params: Params) -> Updates:
        result = gradient(params, *args, **kwargs)
        return result[0] if has_aux else result

    def passes(params: Params, *args: Any, **kwargs: Any) -> tuple[Any, Updates, GradFn]:
        value, grads = first_pass(params, *args, **kwargs)
        return value, grads, jax.tree_util.Partial(second_pass, args, kwargs)

    return passes
