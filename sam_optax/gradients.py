"""The perturbed-gradient function: the first pass, and with it the function that makes the second."""

from collections.abc import Callable, Sequence
from typing import Any

from sam_optax import carried_state, passes
from sam_optax.batch_arguments import Call
from sam_optax.division import Division
from sam_optax.passes import Gradient, LeafShapes, TracedOptions
from sam_optax.second_pass import GradFn, SecondPass
from sam_optax.typing import Params, Updates


def value_and_grad(
    loss_fn: Callable[..., Any],
    has_aux: bool = False,
    *,
    micro_batches: Any = 1,
    max_micro_batches: int | None = None,
    batch_argnums: int | Sequence[int] | None = None,
    batch_argnames: str | Sequence[str] | None = None,
    batch_weight: Callable[..., Any] | None = None,
    state_argnum: int | None = None,
    axis_name: Any = None,
    second_pass_args: Callable[..., Sequence[Any]] | None = None,
    loss_scale: Any = 1.0,
    measure_noise: bool = False,
) -> Callable[..., tuple[Any, Updates, GradFn]]:
    """`jax.value_and_grad` that also returns the second pass, `grad_fn(w) = ∇L(w)` on the same batch.

    Only the first pass returns the loss and the auxiliary output, so metrics and BatchNorm's statistics are updated
    once per step. The second pass has the same arguments after the parameters, including dropout keys, and drops its
    auxiliary output. Under `jax.jit` both passes are compiled into the step.

    With `micro_batches` and with `axis_name` both passes compute the gradient of the whole batch, the mean over its
    parts, so all parts share one perturbation. This holds for losses that are means over examples. A loss that compares
    the examples of a batch with one another, such as a contrastive loss with in-batch negatives, cannot be computed
    from parts.

    Args:
      loss_fn: `loss_fn(params, *args, **kwargs)` → scalar loss, the mean over a batch, or `(loss, aux)`.
      has_aux: whether `loss_fn` returns `(loss, aux)`.
      micro_batches: the number of equal parts that a pass goes through one after the other, to save memory. Floating
        leaves of aux are averaged over the parts, and integer leaves are summed. A random key is the same in each
        part. Call it under `jax.jit`: outside, every call compiles its part anew. With `max_micro_batches` it may be
        traced.
      max_micro_batches: the number of parts that the batch is padded to, so that one compiled step serves batches of
        several sizes. The first `micro_batches` parts are used, and the others are not computed; a traced number that
        is not from 1 to `max_micro_batches` gives NaN. JAX cannot differentiate such a loop in reverse mode, and on a
        CPU gradients of convolutions are slow in it. None: all of the batch is used.
      batch_argnums: the positional arguments that are cut into parts, counted after the parameters. None: all
        arguments whose leaves have an axis, except random keys, if their shapes are unambiguous.
      batch_argnames: the keyword arguments that are cut into parts; every part gets the other arrays as a whole. None:
        if the batch is cut, an array among the keyword arguments is an error.
      batch_weight: from the arguments after the parameters, those of a part and of its pass, to the weight of that part
        in the mean, a scalar of at least 0: the number of its tokens, say, if the loss is a mean over tokens. It holds
        for micro-batches and for devices, and for floating aux; integer aux is summed over all parts. A part of weight
        0 is dropped from the means, even if its loss is NaN; if all weights are 0, loss and gradient are 0. None: all
        parts weigh the same.
      state_argnum: the argument, counted after the parameters, that is the state of the model: aux, or one of its
        direct children, is then the new state, with the same structure, shapes and dtypes. It goes from part to part,
        is never cut, and may hold counters, bools and keys; the second pass starts from the state that the first one
        started from. Over devices its floating leaves are averaged, and the others kept.
      axis_name: the device axis, or axes, under `jax.shard_map`, `jax.pmap` or `jax.vmap`, over which loss, aux and
        both gradients are averaged: one perturbation for all devices.
      second_pass_args: from the arguments after the parameters to those of the second pass, as a tuple, for example
        with another dropout key. None: the same arguments. Keyword arguments are always the same.
      loss_scale: a number by which the loss is multiplied before each pass, and each gradient divided after it, for
        passes in float16; it may be traced. The gradients have the parameters' dtype. A power of two adds no rounding.
      measure_noise: whether both passes also measure the gradient noise, between the batch and its micro-batches, or
        the devices' parts of it: for `track_noise`. It costs the norms of the gradients, no further pass. A random key
        that is the same in each part biases the noise scale downwards, and BatchNorm upwards: `track_noise` says why.

    Returns:
      A function of the arguments of `loss_fn` that returns `(value, grads, grad_fn)`, where value is the loss or
      `(loss, aux)`. `grad_fn` is a `sam_optax.GradFn`: a function, and a pytree of the arguments.

    Raises:
      ValueError: If an option is not of its kind, if noise is to be measured of one part or with `batch_weight`; and,
        when called, if a batch cannot be cut into equal parts, if it is not certain which arguments are batches, or if
        aux holds a state that `state_argnum` does not name, or does not hold the one that it names.

    Example:
      >>> import jax.numpy as jnp, sam_optax
      >>> value_and_grad = sam_optax.value_and_grad(lambda w, x: jnp.sum(x * w**2))
      >>> loss, grads, grad_fn = value_and_grad(jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0]))
      >>> print(loss, grads, grad_fn(jnp.array([0.0, 1.0])))
      19.0 [ 6. 16.] [0. 8.]

      A mean over tokens from two parts of the batch, which hold one token and three:

      >>> def loss_fn(w, x, mask):
      ...     return jnp.sum(mask * x * w) / jnp.sum(mask)
      >>> value_and_grad = sam_optax.value_and_grad(
      ...     loss_fn, micro_batches=2, batch_argnums=(0, 1), batch_weight=lambda x, mask: jnp.sum(mask)
      ... )
      >>> x, mask = jnp.arange(4.0).reshape(2, 2), jnp.array([[1.0, 0.0], [1.0, 1.0]])
      >>> loss, grads, grad_fn = value_and_grad(jnp.array(3.0), x, mask)
      >>> print(loss, loss_fn(3.0, x, mask))
      5.0 5.0
    """
    passes.check_function("loss_fn", loss_fn, "from parameters and a batch to a scalar loss")
    passes.check_second_pass_args(second_pass_args)
    passes.check_scale(loss_scale)
    division = Division.create(micro_batches, max_micro_batches, batch_argnums, batch_argnames, axis_name)
    division.check_noise(measure_noise, batch_weight)
    objective = passes.objective(loss_fn, has_aux, batch_weight, state_argnum)
    gradient = Gradient(objective, division, loss_scale, measure_noise)

    def second_pass(
        params: Params, args: tuple[Any, ...], kwargs: dict[str, Any], options: TracedOptions, shapes: LeafShapes
    ) -> SecondPass:
        shapes.check(params)
        return gradient.with_traced_options(options).again(
            params, *carried_state.split(Call(args, kwargs), state_argnum)
        )

    def both_passes(params: Params, *args: Any, **kwargs: Any) -> tuple[Any, Updates, GradFn]:
        call = Call(args, kwargs)
        state, batch = carried_state.split(call, state_argnum)
        found, state = gradient(params, state, batch)
        aux = carried_state.put(found.aux, state)
        again = passes.second_call(second_pass_args, call)
        noise = gradient.noise(found, batch) if measure_noise else None
        grad_fn = GradFn(second_pass, (again.args, again.kwargs, gradient.traced_options, LeafShapes.of(params)), noise)
        return ((found.loss, aux) if has_aux else found.loss), found.gradient, grad_fn

    return both_passes
