"""The perturbed-gradient function for Flax NNX, and a `TrainState` for Flax Linen (the extra `flax`)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import optax
from flax import nnx
from flax.training import train_state

from sam_optax import devices, hyperparameters, shards, trees
from sam_optax.measured_pass import MeasuredGradFn
from sam_optax.noise_scale import NoiseTerms, noise_terms
from sam_optax.typing import GradFn, Params, Updates


def value_and_grad(
    loss_fn: Callable[..., Any],
    wrt: nnx.filterlib.Filter = nnx.Param,
    has_aux: bool = False,
    *,
    micro_batches: int = 1,
    batch_argnums: int | Sequence[int] | None = None,
    axis_name: Any = None,
    measure_noise: bool = False,
) -> Callable[..., tuple[Any, nnx.State, GradFn]]:
    """`nnx.value_and_grad` that also returns the second pass, for `nnx.Optimizer.update(..., grad_fn=grad_fn)`.

    The first pass moves the model's other state (BatchNorm's statistics, dropout's counts) on, once. The second
    starts from the state before it, hence from the same dropout keys, and leaves no trace in the model. Rngs
    and metrics among the further arguments are treated alike.

    Args:
      loss_fn: `loss_fn(model, *args, **kwargs)` → scalar loss, or `(loss, aux)`.
      wrt: the variables to differentiate by, the same as the optimizer's `wrt`.
      has_aux: whether `loss_fn` returns `(loss, aux)`.
      micro_batches: in how many equal parts, one after the other, both passes go through the batch. The model's other
        state moves on with each part, as it does when the parts are batches of their own; floating aux is averaged,
        integer aux summed.
      batch_argnums: which arguments are cut, counted after the model. None: all whose leaves have an axis, keys apart.
      axis_name: the device axis, or axes, over which loss, aux, both gradients and the model's other floating state are
        averaged: one perturbation for all devices.
      measure_noise: whether both passes also measure the gradient noise between the batch and its micro-batches, for
        `sam_optax.track_noise`. BatchNorm biases the noise scale upwards; dropout, which draws anew in each
        micro-batch, does not bias it.

    Returns:
      A function of the arguments of `loss_fn` that returns `(value, grads, grad_fn)`, where value is the loss or
      `(loss, aux)` and the gradients have the structure of `nnx.state(model, wrt)`. Use it under `nnx.jit`.

    Raises:
      ValueError: If `loss_fn` cannot be called, if `micro_batches` is no positive integer, or 1 where noise is to be
        measured; or, when called, if the model has no variable of `wrt`, the batch cannot be cut, or `grad_fn` is given
        other variables.

    Example:
      >>> import jax.numpy as jnp, optax, sam_optax, sam_optax.flax
      >>> from flax import nnx
      >>> model = nnx.BatchNorm(2, rngs=nnx.Rngs(0))
      >>> tx = optax.chain(sam_optax.sam(rho=0.1), optax.sgd(0.1))
      >>> optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
      >>> value_and_grad = sam_optax.flax.value_and_grad(lambda model, x: jnp.mean(model(x) ** 4))
      >>> x = jnp.array([[0.0, 1.0], [4.0, 1.0]])
      >>> loss, grads, grad_fn = value_and_grad(model, x)
      >>> _ = optimizer.update(model, grads, grad_fn=grad_fn)
      >>> print(model.mean[...])
      [0.02 0.01]
    """
    if not callable(loss_fn):
        raise ValueError(f"loss_fn is {loss_fn!r}: give a function from a model and a batch to a scalar loss.")
    hyperparameters.check_count("micro_batches", micro_batches, "the parts that the batch is cut into")
    if measure_noise and micro_batches == 1:
        raise ValueError("measure_noise is True, and the batch has one part: give micro_batches of 2 or more.")
    of_part = _passes(loss_fn, wrt, has_aux, axis_name)

    def passes(model: Any, *args: Any, **kwargs: Any) -> tuple[Any, nnx.State, GradFn]:
        if micro_batches == 1:
            return of_part(model, *args, **kwargs)
        argnums = shards.batches_among(args, batch_argnums)
        stacked, found = shards.split(args, argnums, micro_batches), []
        for i in range(micro_batches):
            part = jax.tree.map(lambda x, i=i: x[i], stacked)
            found.append(of_part(model, *shards.put_back(args, argnums, part), **kwargs))
        values, grads, grad_fns = zip(*found, strict=True)
        size = shards.batch_size(args, argnums) * devices.count(axis_name)

        def measured(at: Params) -> tuple[Any, NoiseTerms]:
            return _mean_and_noise([grad_fn(at) for grad_fn in grad_fns], size)

        if measure_noise:
            mean, noise = _mean_and_noise(grads, size)
            return shards.mean(values), mean, MeasuredGradFn(noise, measured)
        return shards.mean(values), shards.mean(grads), lambda at: shards.mean([grad_fn(at) for grad_fn in grad_fns])

    return passes


def _passes(
    loss_fn: Callable[..., Any], wrt: nnx.filterlib.Filter, has_aux: bool, axis_name: Any
) -> Callable[..., tuple[Any, nnx.State, GradFn]]:
    """Both passes over one batch, averaged over the devices of the axis."""
    is_wrt = nnx.filterlib.to_predicate(wrt)

    def of_model(path: tuple[Any, ...], value: Any) -> bool:
        return path[0] == 0 and is_wrt(path[1:], value)

    def loss_of(params: nnx.State, rest: nnx.State, graphdef: Any) -> tuple[Any, tuple[Any, nnx.State]]:
        call = nnx.merge(graphdef, params, rest, copy=True)
        model, args, kwargs = call
        loss, aux = loss_fn(model, *args, **kwargs) if has_aux else (loss_fn(model, *args, **kwargs), None)
        return loss, (aux, nnx.state(call, nnx.All(nnx.Variable, nnx.Not(of_model))))

    first_pass = jax.value_and_grad(loss_of, has_aux=True)
    gradient = jax.grad(loss_of, has_aux=True)

    def passes(model: Any, *args: Any, **kwargs: Any) -> tuple[Any, nnx.State, GradFn]:
        call = (model, args, kwargs)
        graphdef, params, rest = nnx.split(call, of_model, ...)
        rest = jax.tree.map(lambda x: x, rest)  # else it holds the model's own variables, and moves on with them
        if not jax.tree.leaves(params):
            raise ValueError(f"wrt is {wrt!r}, and the model has no such variable: name a kind that it has.")
        (loss, (aux, moved)), grads = first_pass(devices.vary(params, axis_name), rest, graphdef)
        value, grads = devices.mean_or_sum((((loss, aux) if has_aux else loss), grads), axis_name)

        def grad_fn(at: Params) -> Updates:
            found = gradient(devices.vary(_like(params, at), axis_name), rest, graphdef)[0]
            return _like(at, devices.mean_or_sum(found, axis_name))

        nnx.update(call, devices.mean(moved, axis_name))
        return value, grads[0], grad_fn

    return passes


def _mean_and_noise(gradients: Sequence[Any], size: int) -> tuple[Any, NoiseTerms]:
    """Of the parts of a batch of `size` examples, on all devices."""
    mean, squares = shards.mean(gradients), shards.mean([trees.inner(g, g) for g in gradients])
    return mean, noise_terms(squares, size // len(gradients), trees.inner(mean, mean), size)


class TrainState(train_state.TrainState):
    """Flax Linen's `TrainState`, whose `apply_gradients` hands the second pass on to the optimizer.

    `flax.training.train_state.TrainState` passes nothing on to `tx.update`, and so cannot drive a sharpness-aware
    optimizer. Subclass it in the same way, to add `batch_stats` for instance.

    Example:
      >>> import jax.numpy as jnp, optax, sam_optax, sam_optax.flax
      >>> tx = optax.chain(sam_optax.sam(rho=0.1), optax.sgd(0.1))
      >>> state = sam_optax.flax.TrainState.create(apply_fn=None, params={"w": jnp.array([1.0, 2.0])}, tx=tx)
      >>> value_and_grad = sam_optax.value_and_grad(lambda params, x: jnp.sum(x * params["w"] ** 2))
      >>> loss, grads, grad_fn = value_and_grad(state.params, jnp.array([0.0, 1.0]))
      >>> state = state.apply_gradients(grads=grads, grad_fn=grad_fn, value=loss)
      >>> print(state.step, state.params["w"])
      1 [1.   1.58]
    """

    def apply_gradients(
        self,
        *,
        grads: Updates,
        grad_fn: GradFn | None = None,
        perturb: bool | None = None,
        value: Any = None,
        extra_args: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> "TrainState":
        """One step: `w ← w + tx.update(grads, opt_state, w, grad_fn=…)`.

        Args:
          grads: the clean gradient.
          grad_fn: the second pass, which `sam_optax.value_and_grad` returns.
          perturb: static; False skips the second pass, None leaves it to the method's policy.
          value: the loss, for the transforms that want it.
          extra_args: further keyword arguments for `tx.update`.
          **kwargs: fields of the state to replace, such as `batch_stats`.

        Returns:
          The next state.
        """
        given = {"grad_fn": grad_fn, "perturb": perturb, "value": value}
        extra = {name: x for name, x in given.items() if x is not None} | dict(extra_args or {})
        tx = optax.with_extra_args_support(self.tx)
        updates, opt_state = tx.update(grads, self.opt_state, self.params, **extra)
        params = optax.apply_updates(self.params, updates)
        return self.replace(step=self.step + 1, params=params, opt_state=opt_state, **kwargs)


def _like(structure: Any, values: Any) -> Any:
    """The leaves of `values` in the containers of `structure`: `nnx.Optimizer` unpacks variables to arrays."""
    ours, theirs = jax.tree.leaves(values), jax.tree.leaves(structure)
    if [x.shape for x in ours] != [x.shape for x in theirs]:
        raise ValueError(
            f"grad_fn got {len(ours)} parameters where the gradient is taken by {len(theirs)}, or of other shapes: "
            "give sam_optax.flax.value_and_grad and nnx.Optimizer the same wrt."
        )
    return jax.tree.unflatten(jax.tree.structure(structure), ours)
