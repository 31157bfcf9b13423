"""The perturbed-gradient function of Functional SAM."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from sam_optax import carried_state, devices, microbatch, passes
from sam_optax.batch_arguments import Call
from sam_optax.microbatch import PartResult
from sam_optax.passes import LeafShapes
from sam_optax.second_pass import GradFn, SecondPass
from sam_optax.typing import Params, Updates


def functional_value_and_grad(
    model_fn: Callable[..., Any],
    logits_loss: Callable[..., Any],
    has_aux: bool = False,
    *,
    batch_weight: Callable[..., Any] | None = None,
    state_argnum: int | None = None,
    axis_name: Any = None,
) -> Callable[..., tuple[Any, Updates, GradFn]]:
    """`value_and_grad` whose second pass perturbs the model and not the loss: `grad_fn(w + ε) = J(w + ε)ᵀ ∂ℓ/∂z|_w`.

    `J` is the Jacobian of the logits `z`. The factor `∂ℓ/∂z`, the gradient of the loss with respect to the logits, is
    that of the clean pass. In SAM the perturbation changes this factor, too; in language models that change dominates
    and is harmful. `sam_optax.sam` works with this `grad_fn` unchanged. From "Avoiding spurious sharpness minimization
    broadens applicability of SAM" (Singh et al., 2025, https://arxiv.org/abs/2502.02407).

    Args:
      model_fn: `model_fn(params, *args, **kwargs)` → logits, any tree of arrays, or `(logits, aux)`.
      logits_loss: `logits_loss(logits, *args, **kwargs)` → scalar loss, with the same further arguments.
      has_aux: whether `model_fn` returns `(logits, aux)`, for example with BatchNorm's new statistics.
      batch_weight: from the arguments after the parameters, those of a device, to the weight of the device in the mean;
        see `sam_optax.value_and_grad`.
      state_argnum: the argument, counted after the parameters, that is the state of the model, whose new value is in
        aux; see `sam_optax.value_and_grad`.
      axis_name: the device axis, or axes, over which loss, aux and both gradients are averaged, as
        `sam_optax.value_and_grad` does it.

    Returns:
      A function `(params, *args, **kwargs)` → `(value, grads, grad_fn)`, where value is the loss or `(loss, aux)`.

    Raises:
      ValueError: If `model_fn`, `logits_loss` or `batch_weight` cannot be called, or `state_argnum` is not an integer;
        and, when called, if aux does not hold the state as it should.

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
        passes.check_function(name, given, "as sam_optax.functional_value_and_grad describes it")
    passes.check_weight(batch_weight)
    passes.check_state_argnum(state_argnum, has_aux)
    model = _Model(model_fn, has_aux, state_argnum, batch_weight, axis_name)

    def second_pass(
        params: Params, slope: Any, args: tuple[Any, ...], kwargs: dict[str, Any], shapes: LeafShapes
    ) -> SecondPass:
        shapes.check(params)
        call = Call(args, kwargs)
        logits, back, _ = model.pull_back(params, call)
        values = back(slope)[0], logits_loss(logits, *args, **kwargs)
        return SecondPass(*model.reduced(PartResult(values, model.weight(call), None), None)[0])

    def both_passes(params: Params, *args: Any, **kwargs: Any) -> tuple[Any, Updates, GradFn]:
        call = Call(args, kwargs)
        logits, back, (aux, state) = model.pull_back(params, call)
        loss, slope = jax.value_and_grad(logits_loss)(logits, *args, **kwargs)
        result = PartResult((loss, aux, back(slope)[0]), model.weight(call), state)
        (loss, aux, grads), state = model.reduced(result, carried_state.split(call, state_argnum)[0])
        grad_fn = GradFn(second_pass, (slope, args, kwargs, LeafShapes.of(params)))
        return ((loss, carried_state.put(aux, state)) if has_aux else loss), grads, grad_fn

    return both_passes


@dataclass(frozen=True)
class _Model:
    """The model as a function of its parameters, and the mean over the devices."""

    model_fn: Callable[..., Any]
    has_aux: bool
    state_argnum: int | None
    batch_weight: Callable[..., Any] | None
    axis_name: Any

    def pull_back(self, params: Params, call: Call) -> tuple[Any, Callable[..., Any], tuple[Any, Any]]:
        """The logits, the product with the transposed Jacobian, and aux, from which the state is split off."""
        fn = lambda w: self.model_fn(w, *call.args, **call.kwargs)  # noqa: E731
        params = devices.vary(params, self.axis_name)
        if not self.has_aux:
            return *jax.vjp(fn, params), (None, None)
        logits, back, aux = jax.vjp(fn, params, has_aux=True)
        if self.state_argnum is not None:
            return logits, back, carried_state.take(aux, carried_state.split(call, self.state_argnum)[0])
        if self.axis_name is not None:
            carried_state.refuse_unnamed(aux, call, only_counters=True)
        return logits, back, (aux, None)

    def weight(self, call: Call) -> jax.Array | None:
        """The weight of this device in the mean."""
        return self.batch_weight and microbatch.checked_weight(self.batch_weight(*call.args, **call.kwargs))

    def reduced(self, result: PartResult, before: Any) -> tuple[Any, Any]:
        """The values of all devices, and the state after them."""
        return passes.over_devices(microbatch.whole(result, before), self.axis_name)
