"""m-SAM: one perturbation for every m examples."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sam_optax import devices, gradients, hyperparameters, parts, shards, trees
from sam_optax.noise_scale import Noise, NoiseTerms, noise_terms
from sam_optax.typing import Params, State, Updates

_NOTHING = NoiseTerms(jnp.nan, jnp.nan)


def sharpness_aware_grad(
    loss_fn: Callable[..., Any],
    method: optax.GradientTransformation,
    m: int | None = None,
    *,
    batch_argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    axis_name: Any = None,
    measure_noise: bool = False,
) -> Callable[..., tuple[Any, Any, Any, State]]:
    """The sharpness-aware gradient of m-SAM: the mean of what `method` makes of each shard of m examples.

    Each shard has its own `g_i`, `ε_i` and `g_{s,i}`: with a small m the perturbation is that of a small batch, which
    is known to generalise better than that of a large one, whatever the batch size. It takes two gradient
    evaluations in all, and at a fixed m does not depend on the number of devices. All shards read the incoming state;
    of what they leave, floating leaves are averaged, and the count goes up once. With `m=None` the batch is one shard
    and this is the plain method, so that one training loop serves every m. From "Sharpness-Aware Minimization for
    Efficiently Improving Generalization" (Foret et al., 2021, https://arxiv.org/abs/2010.01412).

    On accelerators a scan goes over the shards, whose memory is that of one; on the CPU they stand one after the other.

    Args:
      loss_fn: `loss_fn(params, *args, **kwargs)` → scalar loss, the mean over a batch, or `(loss, aux)`.
      method: a sharpness-aware method without optimizer behind it, as `sam_optax.gsam()`.
      m: the number of examples of a shard, which divides the batch; with `axis_name` each device's part of it.
      batch_argnums: which arguments are batches, counted after the state; the others go whole to every shard. For
        `loss_fn(params, x, y)` it is `(0, 1)`.
      has_aux: whether `loss_fn` returns `(loss, aux)`. Over the shards floating aux is averaged, integer aux summed.
      axis_name: the device axis, or axes, under `jax.shard_map` to average over: each device makes its own shards.
      measure_noise: whether to measure the noise of the clean and of the sharpness-aware gradient between the batch and
        its shards, for `track_noise`; then aux is `(aux, noise)`. It costs norms, and one more gradient in memory. A
        random key that all shards share biases the noise scale downwards, and BatchNorm upwards.

    Returns:
      `fn(params, state, *args, perturb=None, **kwargs)` → `(loss, aux, gradient, state)`, with the state of `method`.
      The gradient goes to an ordinary optimizer; aux is None where there is none.

    Raises:
      ValueError: If `loss_fn` cannot be called, if `method` is no transformation or `m` no positive integer; and, when
        called, if `m` does not divide the batch, or if noise is to be measured of one shard.

    Example:
      >>> import jax.numpy as jnp, optax, sam_optax
      >>> method, base = sam_optax.sam(rho=0.1), optax.sgd(0.1, momentum=0.9)
      >>> fn = sam_optax.sharpness_aware_grad(lambda w, x: jnp.mean((x @ w) ** 2), method, m=2)
      >>> w, x = jnp.array([1.0, 2.0]), jnp.eye(2).repeat(2, axis=0)
      >>> loss, _, grads, state = fn(w, method.init(w), x)
      >>> updates, _ = base.update(grads, base.init(w), w)
      >>> print(loss, *(f"{x:.2f}" for x in updates))
      2.5 -0.11 -0.21
    """
    parts.check_transformation("method", method)
    if m is not None:
        hyperparameters.check_count("m", m, "the examples of a shard, or None for one shard")
    of_shard = _of_shard(loss_fn, method, has_aux, measure_noise)

    def of_batch(params: Params, state: State, args: Sequence[Any], call: dict[str, Any], perturb: Any) -> Any:
        if m is None:
            return of_shard(params, state, args, call, perturb)
        argnums = shards.batches_among(args, batch_argnums)
        size = shards.batch_size(args, argnums)
        if size == m:
            return of_shard(params, state, args, call, perturb)
        if size % m:
            raise ValueError(f"m is {m}, and the batch has {size} examples: give an m that divides it.")

        def parted(shard: Sequence[Any]) -> tuple[Any, Any]:
            found = of_shard(params, state, shards.put_back(args, argnums, shard), call, perturb)
            averaged, kept = _part_by_dtype(found[3])
            return (found[:3], averaged), kept

        (found, averaged), kept = shards.average(parted, shards.split(args, argnums, size // m))
        return *found, _join(state, averaged, kept)

    def fn(params: Params, state: State, *args: Any, perturb: bool | None = None, **kwargs: Any) -> Any:
        loss, aux, grads, state = of_batch(devices.vary(params, axis_name), state, args, kwargs, perturb)
        loss, aux, grads = devices.mean_or_sum((loss, aux, grads), axis_name)
        if measure_noise:
            size = shards.batch_size(args, shards.batches_among(args, batch_argnums))
            noise = _noise(m or size, size * devices.count(axis_name), grads, *aux[1])
            aux = aux[0], noise if perturb is not False else noise._replace(perturbed=_NOTHING)
        return loss, aux, grads, devices.mean(state, axis_name)

    return fn


def _of_shard(loss_fn: Callable[..., Any], method: Any, has_aux: bool, measure_noise: bool) -> Callable[..., Any]:
    """Loss, aux, the gradient that the method makes of one shard, and its state; with aux goes what tells the noise."""
    value_and_grad = gradients.value_and_grad(loss_fn, has_aux=has_aux)
    tx = optax.with_extra_args_support(method)

    def of_shard(params: Params, state: State, args: Sequence[Any], call: dict[str, Any], perturb: Any) -> Any:
        value, grads, grad_fn = value_and_grad(params, *args, **call)
        loss, aux = value if has_aux else (value, None)
        extra = {} if perturb is None else {"perturb": perturb}
        made, state = tx.update(grads, state, params, grad_fn=grad_fn, value=loss, **extra)
        if measure_noise:
            aux = aux, (grads, trees.inner(grads, grads), trees.inner(made, made))
        return loss, aux, made, state

    return of_shard


def _noise(small: int, large: int, made: Updates, clean: Updates, *squares: jax.Array) -> Noise:
    """From the means over the shards of both gradients and of their squares, the clean one's first."""
    pairs = zip(squares, (clean, made), strict=True)
    return Noise(*(noise_terms(square, small, trees.inner(mean, mean), large) for square, mean in pairs))


def _part_by_dtype(state: State) -> tuple[list[Any], list[Any]]:
    """The floating leaves, and the others."""
    leaves = jax.tree.leaves(state)
    return [x for x in leaves if trees.is_floating(x)], [x for x in leaves if not trees.is_floating(x)]


def _join(like: State, floating: list[Any], others: list[Any]) -> State:
    rest = {True: iter(floating), False: iter(others)}
    leaves, structure = jax.tree.flatten(like)
    return jax.tree.unflatten(structure, [next(rest[trees.is_floating(x)]) for x in leaves])
