"""The perturbed-gradient function for Equinox (the extra `equinox`)."""

from collections.abc import Callable
from typing import Any

import equinox as eqx

from sam_optax import gradients
from sam_optax.second_pass import GradFn
from sam_optax.typing import Updates


def value_and_grad(
    loss_fn: Callable[..., Any], has_aux: bool = False, **options: Any
) -> Callable[..., tuple[Any, Updates, GradFn]]:
    """`equinox.filter_value_and_grad` that also returns the second pass, `grad_fn(w) = ∇L(w)` on the same batch.

    A module has leaves that are no parameters, such as functions and integers. The gradient, the optimizer and
    `grad_fn` see only its floating arrays, `eqx.filter(model, eqx.is_inexact_array)`; the other leaves are put back
    before the loss is called.

    Args:
      loss_fn: `loss_fn(model, *args, **kwargs)` → scalar loss, or `(loss, aux)`.
      has_aux: whether `loss_fn` returns `(loss, aux)`, for example with the model's `eqx.nn.State`.
      **options: those of `sam_optax.value_and_grad`, with positions counted after the model: `micro_batches`,
        `axis_name`, `second_pass_args` and so on. With micro-batches name the model's `eqx.nn.State` by `state_argnum`.

    Returns:
      A function of the arguments of `loss_fn` that returns `(value, grads, grad_fn)`. Use it under `eqx.filter_jit`,
      and call `grad_fn` in the same compiled function, since it holds the other leaves of the module.

    Raises:
      ValueError: If `loss_fn` cannot be called, or an option is wrong.

    Example:
      >>> import equinox as eqx, jax, jax.numpy as jnp, optax, sam_optax, sam_optax.equinox
      >>> model = eqx.nn.MLP(2, "scalar", width_size=4, depth=1, key=jax.random.key(0))
      >>> tx = optax.chain(sam_optax.sam(rho=0.1), optax.sgd(0.1))
      >>> value_and_grad = sam_optax.equinox.value_and_grad(lambda model, x: jnp.mean(jax.vmap(model)(x) ** 2))
      >>> @eqx.filter_jit
      ... def step(model, opt_state, x):
      ...     loss, grads, grad_fn = value_and_grad(model, x)
      ...     params = eqx.filter(model, eqx.is_inexact_array)
      ...     updates, opt_state = tx.update(grads, opt_state, params, grad_fn=grad_fn)
      ...     return eqx.apply_updates(model, updates), opt_state, loss
      >>> opt_state = tx.init(eqx.filter(model, eqx.is_inexact_array))
      >>> model, opt_state, loss = step(model, opt_state, jnp.eye(2))
    """
    if not callable(loss_fn):
        raise ValueError(f"loss_fn is {loss_fn!r}: give a function from a model and a batch to a scalar loss.")
    gradients.value_and_grad(loss_fn, has_aux, **options)  # checks the options now, not in the first step

    def passes(model: Any, *args: Any, **kwargs: Any) -> tuple[Any, Updates, GradFn]:
        params, rest = eqx.partition(model, eqx.is_inexact_array)

        def loss_of(params: Any, *args: Any, **kwargs: Any) -> Any:
            return loss_fn(eqx.combine(params, rest), *args, **kwargs)

        return gradients.value_and_grad(loss_of, has_aux, **options)(params, *args, **kwargs)

    return passes
