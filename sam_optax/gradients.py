"""The perturbed-gradient function: the first pass, and with it the function that makes the second."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from sam_optax import devices, hyperparameters, shards, trees
from sam_optax.measured_pass import MeasuredGradFn
from sam_optax.noise_scale import NoiseTerms, noise_terms
from sam_optax.typing import GradFn, Params, Updates


def value_and_grad(
    loss_fn: Callable[..., Any],
    has_aux: bool = False,
    *,
    micro_batches: int = 1,
    batch_argnums: int | Sequence[int] | None = None,
    axis_name: Any = None,
    second_pass_args: Callable[..., Sequence[Any]] | None = None,
    loss_scale: float = 1.0,
    measure_noise: bool = False,
) -> Callable[..., tuple[Any, Updates, GradFn]]:
    """`jax.value_and_grad` that also returns the second pass, `grad_fn(w) = ∇L(w)` on the same batch.

    The first pass alone gives the loss and the auxiliary output: metrics and BatchNorm's statistics move once
    a step. The second pass has the same arguments after the parameters, dropout keys included, and drops
    its auxiliary output. Under `jax.jit` both passes are compiled into the step.

    With `micro_batches` and with `axis_name` both passes are still those of the whole batch: the mean over its parts.
    The perturbation is that of the whole batch then, as if it had been computed at once.

    Args:
      loss_fn: `loss_fn(params, *args, **kwargs)` → scalar loss, the mean over a batch, or `(loss, aux)`.
      has_aux: whether `loss_fn` returns `(loss, aux)`.
      micro_batches: in how many equal parts, one after the other, a pass goes through the batch, to save memory. Then
        floating leaves of aux are averaged over the parts, and integer leaves summed. A random key is the same in
        each part. Call it under `jax.jit`: outside, every call compiles its part anew.
      batch_argnums: which arguments are cut, counted after the parameters; keyword arguments are not. None: all whose
        leaves have an axis, typed random keys apart. Name them where a state stands among them, or an old-style key.
      axis_name: the device axis, or axes, under `jax.shard_map`, `jax.pmap` or `jax.vmap`, over which loss, aux and
        both gradients are averaged: one perturbation for all devices.
      second_pass_args: from the arguments after the parameters to those of the second pass, as a tuple; for another
        dropout key for instance. None: the same. Keyword arguments are the same in any case.
      loss_scale: a number that the loss is multiplied by before each pass and each gradient divided by after it, for
        passes in float16. The gradients have the parameters' dtype. A power of two costs no rounding.
      measure_noise: whether both passes also measure the gradient noise, between the batch and its micro-batches, or
        the devices' parts of it: for `track_noise`. It costs the norms of the gradients, no further pass. A random key
        that is the same in each part biases the noise scale downwards, and BatchNorm upwards: `track_noise` says why.

    Returns:
      A function of the arguments of `loss_fn` that returns `(value, grads, grad_fn)`, where value is the loss or
      `(loss, aux)`. `grad_fn` is itself a pytree of the arguments, and so may be passed into a `jax.jit`.

    Raises:
      ValueError: If `loss_fn` or `second_pass_args` cannot be called, if `micro_batches` is no positive integer or
        `loss_scale` no positive number, or if noise is to be measured of one part; and, when called, if a batch cannot
        be cut into equal parts.

    Example:
      >>> import jax.numpy as jnp, sam_optax
      >>> value_and_grad = sam_optax.value_and_grad(lambda w, x: jnp.sum(x * w**2))
      >>> loss, grads, grad_fn = value_and_grad(jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0]))
      >>> print(loss, grads, grad_fn(jnp.array([0.0, 1.0])))
      19.0 [ 6. 16.] [0. 8.]

      The same from two parts of the batch, and with another dropout key in the second pass:

      >>> import jax
      >>> loss_fn = lambda w, x, key: jnp.mean(jax.random.bernoulli(key, 0.5, x.shape) * x * w)
      >>> value_and_grad = sam_optax.value_and_grad(
      ...     loss_fn, micro_batches=2, second_pass_args=lambda x, key: (x, jax.random.fold_in(key, 1))
      ... )
      >>> loss, grads, grad_fn = value_and_grad(jnp.array(2.0), jnp.arange(4.0), jax.random.key(0))
    """
    _check_function("loss_fn", loss_fn, "from parameters and a batch to a scalar loss")
    if second_pass_args is not None:
        _check_function(
            "second_pass_args", second_pass_args, "from the arguments after the parameters to a tuple of them"
        )
    hyperparameters.check_count("micro_batches", micro_batches, "the parts that the batch is cut into")
    _check_scale(loss_scale)
    if measure_noise and micro_batches == 1 and axis_name is None:
        raise ValueError("measure_noise is True, and the batch has one part: give micro_batches of 2 or more.")
    gradients = _gradients(loss_fn, has_aux, loss_scale)
    gradients = _with_square(gradients) if measure_noise else gradients
    whole = _over_devices(_over_parts(gradients, micro_batches, batch_argnums), axis_name)

    def noise(args: Sequence[Any], square: jax.Array, grads: Updates) -> NoiseTerms:
        size = shards.batch_size(args, shards.batches_among(args, batch_argnums))
        large = size * devices.count(axis_name)
        return noise_terms(square, size // micro_batches, trees.inner(grads, grads), large)

    def second_pass(args: tuple[Any, ...], kwargs: dict[str, Any], params: Params) -> Any:
        (_, aux), grads = whole(params, args, kwargs)
        return (grads, noise(args, aux[1], grads)) if measure_noise else grads

    def passes(params: Params, *args: Any, **kwargs: Any) -> tuple[Any, Updates, GradFn]:
        (loss, aux), grads = whole(params, args, kwargs)
        again = args if second_pass_args is None else _checked(second_pass_args(*args, **kwargs))
        grad_fn = jax.tree_util.Partial(second_pass, again, kwargs)
        if measure_noise:
            aux, square = aux
            grad_fn = MeasuredGradFn(noise(args, square, grads), grad_fn)
        return ((loss, aux) if has_aux else loss), grads, grad_fn

    return passes


Gradients = Callable[[Params, Sequence[Any], dict[str, Any]], tuple[Any, Updates]]
"""`(params, args, kwargs) → ((loss, aux), gradient)`."""


def _gradients(loss_fn: Callable[..., Any], has_aux: bool, scale: float) -> Gradients:
    def scaled_loss(params: Params, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        loss, aux = loss_fn(params, *args, **kwargs) if has_aux else (loss_fn(params, *args, **kwargs), None)
        return (loss if scale == 1 else loss * scale), (loss, aux)

    gradient = jax.grad(scaled_loss, has_aux=True)

    def gradients(params: Params, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, Updates]:
        grads, value = gradient(params, args, kwargs)
        if scale != 1:
            grads = trees.cast_like(jax.tree.map(lambda g: g / scale, trees.widen(grads)), grads)
        return value, grads

    return gradients


def _with_square(gradients: Gradients) -> Gradients:
    """The same with `(aux, ‖gradient‖²)` for aux: where it is averaged over parts, so is the square."""

    def squared(params: Params, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, Updates]:
        (loss, aux), grads = gradients(params, args, kwargs)
        return (loss, (aux, trees.inner(grads, grads))), grads

    return squared


def _over_parts(gradients: Gradients, parts: int, batch_argnums: int | Sequence[int] | None) -> Gradients:
    """The mean over the parts of the batch."""
    if parts == 1:
        return gradients

    def averaged(params: Params, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, Updates]:
        argnums = shards.batches_among(args, batch_argnums)

        def of_part(shard: Sequence[Any]) -> tuple[Any, None]:
            return gradients(params, shards.put_back(args, argnums, shard), kwargs), None

        return shards.average(of_part, shards.split(args, argnums, parts))[0]

    return averaged


def _over_devices(gradients: Gradients, axis_name: Any) -> Gradients:
    """The mean over the devices of the axis."""

    def averaged(params: Params, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, Updates]:
        return devices.mean_or_sum(gradients(devices.vary(params, axis_name), args, kwargs), axis_name)

    return averaged


def _checked(again: Any) -> tuple[Any, ...]:
    if not isinstance(again, tuple | list):
        raise ValueError(
            f"second_pass_args returned {type(again).__name__}: return a tuple of the arguments after the parameters, "
            "as (batch, key)."
        )
    return tuple(again)


def _check_function(name: str, given: Any, meaning: str) -> None:
    if not callable(given):
        raise ValueError(f"{name} is {given!r}: give a function {meaning}.")


def _check_scale(scale: Any) -> None:
    hyperparameters.check_nonnegative_number("loss_scale", scale)
    if not scale > 0:
        raise ValueError(f"loss_scale is {scale!r}: give a positive number, 1.0 for none.")
