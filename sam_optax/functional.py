"""The perturbed-gradient function of Functional SAM."""

from collections.abc import Callable
from typing import Any

import jax

from sam_optax import devices
from sam_optax.typing import GradFn, Params, Updates


def functional_value_and_grad(
    model_fn: Callable[..., Any], logits_loss: Callable[..., Any], has_aux: bool = False, *, axis_name: Any = None
) -> Callable[..., tuple[Any, Updates, GradFn]]:
    """`value_and_grad` whose second pass perturbs the model and not the loss: `grad_fn(w + ε) = J(w + ε)ᵀ ∂ℓ/∂z|_w`.

    `J` is the Jacobian of the logits `z`. The gradient of the loss by the logits is that of the clean pass. SAM's
    gradient differs from it by what the perturbation does to that factor, which in language models
    outweighs the rest and does harm. `sam_optax.sam` works with it unchanged. From "Avoiding spurious sharpness
    minimization broadens applicability of SAM" (Singh et al., 2025, https://arxiv.org/abs/2502.02407).

    Args:
      model_fn: `model_fn(params, *args, **kwargs)` → logits, any tree of arrays, or `(logits, aux)`.
      logits_loss: `logits_loss(logits, *args, **kwargs)` → scalar loss, with the same further arguments.
      has_aux: whether `model_fn` returns `(logits, aux)`, with BatchNorm's new statistics for instance.
      axis_name: the device axis, or axes, over which loss, aux and both gradients are averaged, as
        `sam_optax.value_and_grad` does it.

    Returns:
      A function `(params, *args, **kwargs)` → `(value, grads, grad_fn)`, where value is the loss or `(loss, aux)`.

    Raises:
      ValueError: If `model_fn` or `logits_loss` cannot be called.

    Example:
      >>> import jax.numpy as jnp, optax, sam_optax
      >>> value_and_grad = sam_optax.functional_value_and_grad(
      ...     lambda w, x, y: x @ w, lambda logits, x, y: jnp.mean((logits - y) ** 2)
      ... )
      >>> w, x, y = jnp.ones(2), jnp.eye(2), jnp.zeros(2)
      >>> loss, grads, grad_fn = value_and_grad(w, x, y)
      >>> print(loss, grads, grad_fn(5 * w))  # a linear model has the same Jacobian everywhere
      1.0 [1. 1.] [1. 1.]
    """
    for name, given in (("model_fn", model_fn), ("logits_loss", logits_loss)):
        if not callable(given):
            raise ValueError(f"{name} is {given!r}: give a function, see sam_optax.functional_value_and_grad.")

    def pull_back(args: tuple[Any, ...], kwargs: dict[str, Any], params: Params) -> tuple[Any, Callable[..., Any], Any]:
        model = lambda w: model_fn(w, *args, **kwargs)  # noqa: E731
        at = devices.vary(params, axis_name)
        return jax.vjp(model, at, has_aux=True) if has_aux else (*jax.vjp(model, at), None)

    def second_pass(slope: Any, args: tuple[Any, ...], kwargs: dict[str, Any], params: Params) -> Updates:
        return devices.mean_or_sum(pull_back(args, kwargs, params)[1](slope)[0], axis_name)

    def passes(params: Params, *args: Any, **kwargs: Any) -> tuple[Any, Updates, GradFn]:
        logits, back, aux = pull_back(args, kwargs, params)
        loss, slope = jax.value_and_grad(logits_loss)(logits, *args, **kwargs)
        grad_fn = jax.tree_util.Partial(second_pass, slope, args, kwargs)
        value = (loss, aux) if has_aux else loss
        return *devices.mean_or_sum((value, back(slope)[0]), axis_name), grad_fn

    return passes
