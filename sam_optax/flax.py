"""The perturbed-gradient function for Flax NNX, and a `TrainState` for Flax Linen (the extra `flax`)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import optax
from flax import nnx
from flax.linen.fp8_ops import OVERWRITE_WITH_GRADIENT
from flax.training import train_state

from sam_optax import passes, validation
from sam_optax.batch_arguments import Call
from sam_optax.division import Division
from sam_optax.passes import Gradient, Objective, TracedOptions
from sam_optax.second_pass import GradFn, SecondPass
from sam_optax.typing import Params, SecondPassFn, State, Updates


def value_and_grad(
    loss_fn: Callable[..., Any],
    wrt: nnx.filterlib.Filter = nnx.Param,
    has_aux: bool = False,
    *,
    micro_batches: Any = 1,
    max_micro_batches: int | None = None,
    batch_argnums: int | Sequence[int] | None = None,
    batch_argnames: str | Sequence[str] | None = None,
    batch_weight: Callable[..., Any] | None = None,
    axis_name: Any = None,
    second_pass_args: Callable[..., Sequence[Any]] | None = None,
    loss_scale: Any = 1.0,
    measure_noise: bool = False,
) -> Callable[..., tuple[Any, nnx.State, GradFn]]:
    """`nnx.value_and_grad` that also returns the second pass, for `nnx.Optimizer.update(..., grad_fn=grad_fn)`.

    The first pass updates the model's other state (BatchNorm's statistics, dropout's counts) once. The second pass
    starts from the state before the first one, and so from the same dropout keys, and does not change the model. The
    same holds for modules, rngs and metrics among the further arguments. The options are those of
    `sam_optax.value_and_grad`, which describes them; a model carries its own state, so there is no `state_argnum`.

    Args:
      loss_fn: `loss_fn(model, *args, **kwargs)` → scalar loss, or `(loss, aux)`.
      wrt: the variables to differentiate by, the same as the optimizer's `wrt`.
      has_aux: whether `loss_fn` returns `(loss, aux)`.
      micro_batches: the number of equal parts that both passes go through one after the other. The model's other state
        goes from part to part; floating aux is averaged, integer aux summed.
      max_micro_batches: the number of parts that the batch is padded to, if `micro_batches` is traced.
      batch_argnums: the positional arguments that are cut, counted after the model. None: all whose leaves have an
        axis, if their shapes leave no doubt.
      batch_argnames: the keyword arguments that are cut.
      batch_weight: from the arguments after the model, those of a part, to the weight of that part in the mean.
      axis_name: the device axis, or axes, over which loss, aux, both gradients and the model's other floating state are
        averaged: one perturbation for all devices.
      second_pass_args: from the arguments after the model to those of the second pass, as a tuple.
      loss_scale: a number that the loss is multiplied by before each pass, and each gradient divided by after it.
      measure_noise: whether both passes also measure the gradient noise between the batch and its micro-batches, for
        `sam_optax.track_noise`. BatchNorm biases the noise scale upwards; dropout, which draws anew in each
        micro-batch, does not bias it.

    Returns:
      A function of the arguments of `loss_fn` that returns `(value, grads, grad_fn)`, where value is the loss or
      `(loss, aux)` and the gradients have the structure of `nnx.state(model, wrt)`. Use it under `nnx.jit`.

    Raises:
      ValueError: If an option is not of its kind, or if noise is to be measured of one part; or, when called, if the
        model has no variable of `wrt`, if the batch cannot be cut or it is not certain which arguments are batches, or
        if `grad_fn` is given other variables.

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
    passes.check_function("loss_fn", loss_fn, "from a model and a batch to a scalar loss")
    passes.check_second_pass_args(second_pass_args)
    passes.check_scale(loss_scale)
    passes.check_weight(batch_weight)
    division = Division.create(micro_batches, max_micro_batches, batch_argnums, batch_argnames, axis_name)
    division.check_noise(measure_noise, batch_weight)
    loss = _NnxLoss(loss_fn, wrt, has_aux, batch_weight, is_cut=division.is_cut)

    def both_passes(model: Any, *args: Any, **kwargs: Any) -> tuple[Any, nnx.State, GradFn]:
        call = Call(args, kwargs)
        of_first, of_second = loss.split(model, call), loss.split(model, passes.second_call(second_pass_args, call))

        def gradient_of(split: _Split) -> Gradient:
            return Gradient(loss.objective(split), division, loss_scale, measure_noise)

        def second_pass(at: Params, state: Any, arrays: Call, options: TracedOptions) -> SecondPass:
            gradient = gradient_of(of_second).with_traced_options(options)
            found = gradient.again(_like(of_second.params, at), state, arrays)
            return found._replace(gradient=_like(at, found.gradient))

        gradient = gradient_of(of_first)
        found, state = gradient(of_first.params, of_first.state, of_first.arrays)
        of_first.update(state)
        noise = gradient.noise(found, of_first.arrays) if measure_noise else None
        grad_fn = GradFn(second_pass, (of_second.state, of_second.arrays, gradient.traced_options), noise)
        of_model: Any = found.gradient
        return ((found.loss, found.aux) if has_aux else found.loss), of_model[0], grad_fn

    return both_passes


class _Split(NamedTuple):
    """The arguments of a loss, split into graph nodes with their variables, and plain arrays.

    Attributes:
      objects: `(model, positional arguments, keyword arguments)`, those with variables in them.
      graphdef: the structure of `objects`.
      params: the variables to differentiate by.
      state: the other variables.
      arrays: the call with None in place of each argument that is an object.
      plain_paths: the paths in `state` of arrays that are not variables, and cannot be updated.
    """

    objects: Any
    graphdef: Any
    params: nnx.State
    state: nnx.State
    arrays: Call
    plain_paths: frozenset[tuple[Any, ...]]

    def update(self, state: nnx.State) -> None:
        """Updates the variables of the objects."""
        flat = nnx.to_flat_state(state)
        moved = nnx.from_flat_state([(path, x) for path, x in flat if path not in self.plain_paths])
        nnx.update(self.objects, moved)


@dataclass(frozen=True)
class _NnxLoss:
    """A loss function of an NNX model, as a function of pytrees."""

    loss_fn: Callable[..., Any]
    wrt: nnx.filterlib.Filter
    has_aux: bool
    batch_weight: Callable[..., Any] | None
    is_cut: bool

    def split(self, model: Any, call: Call) -> _Split:
        """Splits the model and the arguments."""
        args = {i: arg for i, arg in enumerate(call.args) if _has_variables(arg)}
        kwargs = {name: arg for name, arg in call.kwargs.items() if _has_variables(arg)}
        arrays = Call(
            tuple(None if i in args else arg for i, arg in enumerate(call.args)),
            {name: arg for name, arg in call.kwargs.items() if name not in kwargs},
        )
        objects = (model, args, kwargs)
        _check_objects((args, kwargs), cut=self.is_cut)
        graphdef, params, state = nnx.split(objects, self._is_param(), ...)
        if not jax.tree.leaves(params):
            raise ValueError(f"wrt is {self.wrt!r}, and the model has no such variable: name a kind that it has.")
        # plain arrays, since the variables of the model are updated in place
        return _Split(objects, graphdef, params, nnx.as_pure(state), arrays, _plain_paths(state))

    def objective(self, split: _Split) -> Objective:
        """The loss and the weight, for arguments of the structure of `split`."""

        def loss(params: Params, state: State, arrays: Call) -> tuple[Any, Any, State]:
            objects = nnx.merge(split.graphdef, params, state, copy=True)
            model, call = objects[0], _joined(objects, arrays)
            found = self.loss_fn(model, *call.args, **call.kwargs)
            loss, aux = found if self.has_aux else (found, None)
            _, _, moved = nnx.split(objects, self._is_param(), ...)
            # variables that the call creates, as sow does, can be added to the model unless parts are combined
            return loss, aux, nnx.as_pure(moved) if self.is_cut or self.batch_weight else moved

        def weight(state: State, arrays: Call) -> Any:
            del state
            call = _joined(split.objects, arrays)
            return self.batch_weight(*call.args, **call.kwargs) if self.batch_weight else None

        return Objective(loss, weight if self.batch_weight else None)

    def _is_param(self) -> Callable[[tuple[Any, ...], Any], bool]:
        is_wrt = nnx.filterlib.to_predicate(self.wrt)
        return lambda path, value: path[0] == 0 and is_wrt(path[1:], value)


def _joined(objects: Any, arrays: Call) -> Call:
    """The call with the objects in their places."""
    _, args, kwargs = objects
    return Call(tuple(args.get(i, arg) for i, arg in enumerate(arrays.args)), arrays.kwargs | kwargs)


def _has_variables(arg: Any) -> bool:
    return bool(jax.tree.leaves(nnx.state((arg,), nnx.Variable)))


def _plain_paths(state: nnx.State) -> frozenset[tuple[Any, ...]]:
    return frozenset(path for path, x in nnx.to_flat_state(state) if not isinstance(x, nnx.Variable))


def _check_objects(objects: Any, cut: bool) -> None:
    """Raises `ValueError` if an argument has a batch and variables: every part would get the whole batch."""
    arrays = nnx.split(objects, nnx.Variable, ...)[2] if cut else {}
    if any(getattr(x, "ndim", 0) > 0 for x in jax.tree.leaves(arrays)):
        raise ValueError(
            "An argument holds both variables and arrays, and the batch is cut into parts: give modules, rngs and "
            "metrics in arguments of their own."
        )


class TrainState(train_state.TrainState):
    """Flax Linen's `TrainState`, whose `apply_gradients` passes the second pass to the optimizer.

    `flax.training.train_state.TrainState` passes no extra arguments to `tx.update`, and so cannot drive a
    sharpness-aware optimizer. Subclass this class as you would subclass Flax's, for example to add `batch_stats`. An
    optimizer that holds two sharpness-aware methods raises a `ValueError`.

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

    @classmethod
    def create(cls, *, apply_fn: Callable[..., Any] | None, params: Params, tx: Any, **kwargs: Any) -> "TrainState":
        """The state before the first step, as `flax.training.train_state.TrainState.create` makes it.

        Raises:
          ValueError: If `tx` holds two sharpness-aware methods, or if `params` has Flax's collection for layers in FP8.
        """
        if isinstance(params, Mapping) and OVERWRITE_WITH_GRADIENT in params:
            raise ValueError(
                f"params has the collection {OVERWRITE_WITH_GRADIENT!r} of Flax's layers in FP8, whose gradient is not "
                "a gradient: use layers in bfloat16 or float32."
            )
        state = super().create(apply_fn=apply_fn, params=params, tx=tx, **kwargs)
        validation.check_one_method("tx", state.opt_state)
        return state

    def apply_gradients(
        self,
        *,
        grads: Updates,
        grad_fn: SecondPassFn | None = None,
        perturb: bool | None = None,
        value: Any = None,
        extra_args: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> "TrainState":
        """One step: `w ← w + tx.update(grads, opt_state, w, grad_fn=…)`.

        Args:
          grads: the clean gradient.
          grad_fn: the second pass, which `sam_optax.value_and_grad` returns.
          perturb: a static bool or None; False skips the second pass, None lets the method's policy decide.
          value: the clean loss, a scalar: for the surrogate gap of `sam_optax.diagnostics`, and for transformations
            that read it.
          extra_args: further keyword arguments for `tx.update`.
          **kwargs: fields of the state to replace, such as `batch_stats`.

        Returns:
          The next state.
        """
        validation.check_one_method("opt_state", self.opt_state)
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
