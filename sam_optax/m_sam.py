"""m-SAM: one perturbation for every m examples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_optax import carried_state, devices, hyperparameters, microbatch, passes, trees, validation
from sam_optax.batch_arguments import BatchArguments, Call, cut
from sam_optax.division import Division, refuse_weighted_noise
from sam_optax.method_states import BSAMState, DecoupledState, MSAMState
from sam_optax.microbatch import PartResult
from sam_optax.noise_scale import Noise, noise_terms
from sam_optax.offset_combiners import PolyakState
from sam_optax.passes import Gradient
from sam_optax.second_pass import GradFn, SecondPass
from sam_optax.typing import Params, State, Updates


def sharpness_aware_grad(
    loss_fn: Callable[..., Any],
    method: optax.GradientTransformation,
    m: int | None = None,
    *,
    batch_argnums: int | Sequence[int] = 0,
    batch_argnames: str | Sequence[str] | None = None,
    batch_weight: Callable[..., Any] | None = None,
    state_argnum: int | None = None,
    has_aux: bool = False,
    axis_name: Any = None,
    measure_noise: bool = False,
) -> Callable[..., tuple[Any, Any, Any, State]]:
    """The sharpness-aware gradient of m-SAM: the mean of the gradients of `method` over the shards of m examples.

    Each shard has its own clean gradient `g_i`, perturbation `ε_i` and sharpness-aware gradient `g_{s,i}`. With a small
    m, the perturbation is that of a small batch, whatever the batch size. Such perturbations are known to generalise
    better than those of a large batch. The total cost is two gradients of the batch, and at a fixed m the result does
    not depend on the number of devices. All shards read the incoming state of the method. The floating leaves of their
    new states are averaged, and the count increases by one. With `m=None` the batch is one shard and this is the plain
    method, so that one training loop serves every m. The method is from "Sharpness-Aware Minimization for Efficiently
    Improving Generalization" (Foret et al., 2021, https://arxiv.org/abs/2010.01412).

    On an accelerator, a `lax.scan` over the shards needs the memory of only one shard. On a CPU, the loop is unrolled.

    Args:
      loss_fn: `loss_fn(params, *args, **kwargs)` → scalar loss, the mean over a batch, or `(loss, aux)`.
      method: a sharpness-aware method without an optimizer, such as `sam_optax.gsam()`.
      m: the number of examples in a shard; None means one shard. It must divide the batch size, or with `axis_name` the
        size of each device's part of the batch.
      batch_argnums: which positional arguments are batches, counted after the state of the method; every shard gets the
        others as a whole. For `loss_fn(params, x, y)` it is `(0, 1)`. With the default 0, no other argument may have
        the leading axis of the batch; if one does and is not part of the batch, give `(0,)`.
      batch_argnames: which keyword arguments are batches; see `value_and_grad`.
      batch_weight: a function from the arguments of a shard, without the parameters, to the weight of the shard in the
        mean; see `value_and_grad`. If all weights are 0, the loss and the gradient are 0, and the floating-point leaves
        of the states do not change.
      state_argnum: the position of the argument, counted after the state of the method, that holds the state of the
        model; see `value_and_grad`. The state is passed from shard to shard, and both passes of a shard start from the
        same state.
      has_aux: whether `loss_fn` returns `(loss, aux)`. Floating-point leaves of aux are averaged over the shards, and
        integer leaves are summed.
      axis_name: the device axis, or axes, under `jax.shard_map` to average over; each device has its own shards.
      measure_noise: whether to estimate the noise of the clean and of the sharpness-aware gradient, by comparing the
        gradients of the shards with those of the batch, for `track_noise`. If so, aux is `(aux, noise)`, and
        `noise.perturbed` is None with `perturb=False`. It costs the norms of the gradients, and the memory of one more
        gradient. A random key that all shards share biases the noise scale downwards, and BatchNorm biases it upwards.

    Returns:
      `fn(params, state, *args, perturb=None, **kwargs)` → `(loss, aux, gradient, state)`, with the state of `method`.
      Pass the gradient to an ordinary optimizer; aux is None without `has_aux`.

    Raises:
      ValueError: If `loss_fn` is not callable, if `method` is not a transformation, if `m` is not a positive integer,
        or if another option is invalid. The returned function raises it if `m` does not divide the batch, if another
        argument looks like a part of the batch, if `method` contains two methods or is a complete optimizer, as `msam`
        is, if noise cannot be measured because there is only one shard, or if aux does not contain the new state of
        the model.

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
    validation.check_transformation("method", method)
    if m is not None:
        hyperparameters.check_count("m", m, "the number of examples in a shard, or None for one shard")
    passes.check_function("loss_fn", loss_fn, "from parameters and a batch to a scalar loss")
    refuse_weighted_noise(measure_noise, batch_weight)
    division = Division(1, BatchArguments.create(batch_argnums, batch_argnames), axis_name)
    gradient = Gradient(passes.objective(loss_fn, has_aux, batch_weight, state_argnum), division)
    extended = optax.with_extra_args_support(method)
    of_batch = _Shards(gradient, extended, m, measure_noise, refuses_others=batch_argnums == 0)

    def fn(params: Params, state: State, *args: Any, perturb: bool | None = None, **kwargs: Any) -> Any:
        validation.check_one_method("method", state)
        _refuse_optimizer(state)
        model_state, call = carried_state.split(Call(args, kwargs), state_argnum)
        step = _Step(devices.vary(params, axis_name), state, perturb)
        found, model_state = of_batch(step, model_state, call)
        aux = carried_state.put(found.aux, model_state) if has_aux else None
        if found.squares is not None:
            small = m or division.batch.size(call)
            aux = aux, _noise(small, division.examples(call), found, found.squares, perturb)
        return found.loss, aux, found.gradient, found.state

    return fn


_OfOptimizer = MSAMState | DecoupledState | BSAMState | PolyakState


def _refuse_optimizer(state: State) -> None:
    """Raises `ValueError` if the state is that of a complete optimizer, which returns a step and not a gradient."""
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, _OfOptimizer))
    if found := [type(node).__name__ for node in nodes if isinstance(node, _OfOptimizer)]:
        raise ValueError(
            f"method holds a complete optimizer ({found[0]}), which returns a step and not a gradient: give a method "
            "that precedes an optimizer, as sam_optax.sam()."
        )


def _refuse_batches(others: Call, size: int) -> None:
    """Raises `ValueError` if a positional argument that every shard gets as a whole has the length of the batch."""
    for i, arg in enumerate(others.args):
        if any(jnp.ndim(x) and jnp.shape(x)[0] == size for x in jax.tree.leaves(arg)):
            raise ValueError(
                f"batch_argnums is 0, and argument {i} after the state also has the leading axis {size}: give "
                f"batch_argnums=(0, {i}) if it is a part of the batch, and (0,) if every shard needs all of it."
            )


class _Step(NamedTuple):
    """What all shards share: parameters, the state of the method, and the static decision to perturb."""

    params: Params
    state: State
    perturb: bool | None


class _Squares(NamedTuple):
    """The terms of the noise: the clean gradient, and the squared norms of both gradients, averaged over shards."""

    clean: Updates
    clean_square: jax.Array
    method_square: jax.Array


class _Found(NamedTuple):
    """The result of the method for a shard, or for all shards.

    Attributes:
      loss: the clean loss.
      aux: the auxiliary output, without the state of the model.
      gradient: the gradient that the method returned.
      state: the state of the method.
      squares: None unless noise is measured.
    """

    loss: jax.Array
    aux: Any
    gradient: Updates
    state: State
    squares: _Squares | None


@dataclass(frozen=True)
class _Shards:
    """The method on every shard of a batch, and the mean over them and over the devices."""

    gradient: Gradient
    method: optax.GradientTransformationExtraArgs
    m: int | None
    measures_noise: bool
    refuses_others: bool

    def __call__(self, step: _Step, model_state: Any, call: Call) -> tuple[_Found, Any]:
        """The result of the batch, and the state of the model after it."""
        axis, split = self.gradient.division.axis_name, _SplitState.of(step.state)
        shards, others = self._cut(call)

        def of_shard(shard: Call, carry: tuple[Any, Any]) -> PartResult:
            values, weight, moved = self._of_shard(step, carry[0], call.put(shard), others)
            after = _SplitState.of(values.state)
            return PartResult((values._replace(state=after.floating), after.unset), weight, (moved, after.others))

        before = model_state, split.others
        if others is None:
            result = microbatch.whole(of_shard(shards, before), before)
        else:
            result = microbatch.reduce(of_shard, shards, before)
        (found, unset), weight, (model_state, kept) = result
        state = split.join(split.before_if_nothing(found.state, weight), unset, kept)
        found = devices.mean_or_sum(found._replace(state=None), axis, weight)
        found = found._replace(state=devices.mean_state(state, axis, weight))
        return found, devices.mean(model_state, axis, weight)

    def _cut(self, call: Call) -> tuple[Call, Call | None]:
        """The batches in shards, and the other arguments; the whole call and None if there is one shard."""
        batches = self.gradient.division.batch
        if self.m is None or (size := batches.size(call)) == self.m:
            return call, None
        if size % self.m:
            raise ValueError(f"m is {self.m}, and the batch has {size} examples: give an m that divides it.")
        chosen = batches.select(call)
        others = call.without(chosen)
        if self.refuses_others:
            _refuse_batches(others, size)
        return cut(chosen, size // self.m), others

    def _of_shard(self, step: _Step, model_state: Any, call: Call, others: Call | None) -> PartResult:
        clean = self.gradient.of_part(step.params, model_state, call, others)

        def second_pass(at: Params) -> SecondPass:
            found = self.gradient.of_part(at, model_state, call, others).values
            return SecondPass(found.gradient, found.loss)

        loss, aux, grads, _ = clean.values
        extra = {} if step.perturb is None else {"perturb": step.perturb}
        grad_fn = GradFn(second_pass, ())
        combined, state = self.method.update(grads, step.state, step.params, grad_fn=grad_fn, value=loss, **extra)
        squares = None
        if self.measures_noise:
            squares = _Squares(grads, trees.inner(grads, grads), trees.inner(combined, combined))
        return clean._replace(values=_Found(loss, aux, combined, state, squares))


class _SplitState(NamedTuple):
    """The leaves of a method's state, grouped by how they are combined over the shards.

    Attributes:
      state: the whole state.
      floating: floating leaves, which are averaged.
      unset: for each flag, the number of shards on which it is not set; the combined flag is True if this number is 0.
      others: the remaining leaves, counts and keys, which are those of the last shard.
    """

    state: State
    floating: list[jax.Array]
    unset: list[jax.Array]
    others: list[jax.Array]

    @classmethod
    def of(cls, state: State) -> "_SplitState":
        """The leaves of `state`."""
        leaves = jax.tree.leaves(state)
        return cls(
            state,
            [x for x in leaves if trees.is_floating(x)],
            [(~x).astype(jnp.int32) for x in leaves if _is_flag(x)],
            [x for x in leaves if not trees.is_floating(x) and not _is_flag(x)],
        )

    def before_if_nothing(self, averaged: list[jax.Array], weight: jax.Array | None) -> list[jax.Array]:
        """The averaged floating leaves; those of this state if the weights of all shards are 0."""
        if weight is None:
            return averaged
        return [jnp.where(weight == 0, old, new) for old, new in zip(self.floating, averaged, strict=True)]

    def join(self, floating: list[jax.Array], unset: list[jax.Array], others: list[jax.Array]) -> State:
        """A state from the leaves of each kind."""
        rest = iter(floating), (count == 0 for count in unset), iter(others)
        leaves, structure = jax.tree.flatten(self.state)
        kinds = [0 if trees.is_floating(x) else 1 if _is_flag(x) else 2 for x in leaves]
        return jax.tree.unflatten(structure, [next(rest[kind]) for kind in kinds])


def _is_flag(x: Any) -> bool:
    return jnp.result_type(x) == jnp.bool_


def _noise(small: int, large: int, found: _Found, squares: _Squares, perturb: bool | None) -> Noise:
    """The noise, from the means over the shards of both gradients and of their squared norms."""
    of_clean = noise_terms(squares.clean_square, small, trees.inner(squares.clean, squares.clean), large)
    if perturb is False:
        return Noise(of_clean, None)
    method_square = trees.inner(found.gradient, found.gradient)
    return Noise(of_clean, noise_terms(squares.method_square, small, method_square, large))
