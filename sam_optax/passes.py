"""Both passes over one batch, for all frameworks: as a whole, in parts, and over devices."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sam_optax import carried_state, devices, hyperparameters, microbatch, trees
from sam_optax.batch_arguments import Call, cut
from sam_optax.division import Division
from sam_optax.microbatch import PartResult
from sam_optax.noise_scale import NoiseTerms, noise_terms
from sam_optax.second_pass import SecondPass
from sam_optax.typing import Params, State, Updates


class Objective(NamedTuple):
    """The function to minimise.

    Attributes:
      loss: `(params, state, call) → (loss, aux, state)`; the state is that of the model, or None.
      weight: `(state, call) → weight`, the weight of a part of the batch in the mean; None: all weights are equal.
    """

    loss: Callable[[Params, State, Call], tuple[Any, Any, State]]
    weight: Callable[[State, Call], Any] | None


class TracedOptions(NamedTuple):
    """The options that are arrays; the others are None.

    They are arguments of the second pass, because `grad_fn` may be returned from the function that is traced.

    Attributes:
      scale: the factor of the loss.
      micro_batches: the number of parts that are used.
    """

    scale: jax.Array | None
    micro_batches: jax.Array | None


class Pass(NamedTuple):
    """The result of a pass over a part or over the whole batch.

    Attributes:
      loss: the mean loss.
      aux: the auxiliary output, without the state.
      gradient: the gradient of the loss, in the parameters' dtypes.
      square: the mean of the squared norms of the parts' gradients; None unless noise is measured.
    """

    loss: jax.Array
    aux: Any
    gradient: Updates
    square: jax.Array | None


@dataclass(frozen=True)
class Gradient:
    """The gradient of an objective on a batch.

    Attributes:
      objective: the function to differentiate.
      division: how the batch is divided.
      scale: the number by which the loss is multiplied before a pass, and the gradient divided after it.
      measures_noise: whether the squared norms of the parts' gradients are kept.
    """

    objective: Objective
    division: Division
    scale: Any = 1.0
    measures_noise: bool = False

    @property
    def traced_options(self) -> TracedOptions:
        """The options that are arrays."""
        return TracedOptions(self.scale if isinstance(self.scale, jax.Array) else None, self.division.count)

    def with_traced_options(self, options: TracedOptions) -> "Gradient":
        """The same gradient with other values of these options."""
        division = replace(self.division, count=options.micro_batches)
        return replace(self, division=division, scale=self.scale if options.scale is None else options.scale)

    def __call__(self, params: Params, state: State, call: Call) -> tuple[Pass, State]:
        """The pass over the whole batch at `params`, and the model's state after it."""
        division, axis = self.division, self.division.axis_name
        params = devices.vary(params, axis)
        if not division.is_cut:
            result = microbatch.whole(self.of_part(params, state, call), state)
        else:
            batches = division.batch.select(call)
            others = call.without(batches)

            def of_part(part: Call, before: State) -> PartResult:
                return self.of_part(params, before, call.put(part), others)

            result = microbatch.reduce(of_part, cut(batches, division.parts), state, division.count)
        return over_devices(result, axis)

    def of_part(self, params: Params, state: State, call: Call, others: Call | None = None) -> PartResult:
        """The pass over one part of the batch.

        Args:
          params: the parameters at which the gradient is computed.
          state: the state of the model before the part.
          call: the arguments of the part.
          others: the arguments that are not batches; None means that the batch has one part.
        """

        def scaled_loss(params: Params, state: State, call: Call) -> tuple[Any, Any]:
            loss, aux, moved = self.objective.loss(params, state, call)
            return (loss if self._is_unscaled else loss * self.scale), (loss, aux, moved)

        grads, (loss, aux, moved) = jax.grad(scaled_loss, has_aux=True)(params, state, call)
        if not self._is_unscaled:
            grads = trees.cast_like(jax.tree.map(lambda g: g / self.scale, trees.widen(grads)), grads)
        if state is None and (others is not None or self.division.axis_name is not None):
            named = call.without(self.division.batch.named(call)) if others is None else others
            carried_state.refuse_unnamed(aux, named, only_counters=others is None)
        square = trees.inner(grads, grads) if self.measures_noise else None
        weight = self.objective.weight and microbatch.checked_weight(self.objective.weight(state, call))
        return PartResult(Pass(loss, aux, grads, square), weight, moved)

    def again(self, params: Params, state: State, call: Call) -> SecondPass:
        """The second pass at `params`."""
        found, _ = self(params, state, call)
        return SecondPass(found.gradient, found.loss, self.noise(found, call) if self.measures_noise else None)

    def noise(self, found: Pass, call: Call) -> NoiseTerms:
        """The noise of the gradient, from the gradients of the parts."""
        large = self.division.examples(call)
        small = large // (self.division.parts * devices.count(self.division.axis_name))
        return noise_terms(found.square, small, trees.inner(found.gradient, found.gradient), large)

    @property
    def _is_unscaled(self) -> bool:
        return isinstance(self.scale, int | float) and self.scale == 1


@jax.tree_util.register_static
@dataclass(frozen=True)
class LeafShapes:
    """The shapes of the parameters' leaves, part of the structure of a `grad_fn` that is a pytree."""

    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, params: Params) -> "LeafShapes":
        """The shapes of the leaves of `params`."""
        return cls(tuple(jnp.shape(x) for x in jax.tree.leaves(params)))

    def check(self, params: Params) -> None:
        """Raises `ValueError` unless the second pass is given parameters like those of the first."""
        given = LeafShapes.of(params)
        if given != self:
            raise ValueError(
                f"grad_fn got parameters of shapes {given.shapes}, and the gradient was taken with respect to "
                f"{self.shapes}: give it parameters of the same structure. A transformation that changes the "
                "parameters, as optax.flatten does, cannot be around a method: write optax.chain(method, "
                "optax.flatten(optimizer)). A model of Flax NNX holds more than its parameters: use "
                "sam_optax.flax.value_and_grad."
            )


def over_devices(result: PartResult, axis_name: Any) -> tuple[Any, State]:
    """The values of the batch of all devices, and the model's state after it."""
    values = devices.mean_or_sum(result.values, axis_name, result.weight)
    return values, devices.mean(result.state, axis_name, result.weight)


def objective(
    loss_fn: Callable[..., Any], has_aux: bool, batch_weight: Callable[..., Any] | None, state_argnum: int | None
) -> Objective:
    """The objective of a loss function; with `state_argnum` that argument is the model's state.

    Raises:
      ValueError: If `batch_weight` cannot be called, or if `state_argnum` is not an integer or there is no `aux`.
    """
    check_weight(batch_weight)
    check_state_argnum(state_argnum, has_aux)

    def with_state(state: State, call: Call) -> Call:
        return call if state_argnum is None else call.replace(state_argnum, state)

    def loss(params: Params, state: State, call: Call) -> tuple[Any, Any, State]:
        call = with_state(state, call)
        found = loss_fn(params, *call.args, **call.kwargs)
        loss, aux = found if has_aux else (found, None)
        return (loss, aux, None) if state_argnum is None else (loss, *carried_state.take(aux, state))

    def weight(state: State, call: Call) -> Any:
        call = with_state(state, call)
        return batch_weight(*call.args, **call.kwargs) if batch_weight else None

    return Objective(loss, weight if batch_weight else None)


def check_state_argnum(state_argnum: Any, has_aux: bool) -> None:
    """Raises `ValueError` unless `state_argnum` is None, or an integer and there is an auxiliary output."""
    if state_argnum is None:
        return
    hyperparameters.check_position("state_argnum", state_argnum)
    if not has_aux:
        raise ValueError(f"state_argnum is {state_argnum!r}: give has_aux=True, and return the new state in aux.")


def check_scale(scale: Any) -> None:
    """Raises `ValueError` unless `loss_scale` is a positive number; a traced one passes."""
    hyperparameters.check_positive_number("loss_scale", scale)


def second_call(second_pass_args: Callable[..., Any] | None, call: Call) -> Call:
    """The arguments of the second pass.

    Raises:
      ValueError: If `second_pass_args` does not return a tuple.
    """
    if second_pass_args is None:
        return call
    args = second_pass_args(*call.args, **call.kwargs)
    if not isinstance(args, tuple | list):
        raise ValueError(
            f"second_pass_args returned {type(args).__name__}: return a tuple of the arguments after the parameters, "
            "as (batch, key)."
        )
    return call._replace(args=tuple(args))


def check_function(name: str, given: Any, meaning: str) -> None:
    """Raises `ValueError` unless `given` can be called."""
    if not callable(given):
        raise ValueError(f"{name} is {given!r}: give a function {meaning}.")


def check_second_pass_args(second_pass_args: Any) -> None:
    """Raises `ValueError` unless `second_pass_args` is None or a function."""
    if second_pass_args is not None:
        check_function(
            "second_pass_args", second_pass_args, "from the arguments after the parameters to a tuple of them"
        )


def check_weight(batch_weight: Any) -> None:
    """Raises `ValueError` unless `batch_weight` is None or a function."""
    if batch_weight is not None and not callable(batch_weight):
        raise ValueError(
            f"batch_weight is {batch_weight!r}: give a function from the arguments after the parameters to the weight "
            "of that part of the batch, as lambda tokens, mask: jnp.sum(mask)."
        )
