"""bSAM, Bayesian SAM: a complete optimizer whose radius is adapted to each parameter, with its passes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from sam_optax import carried_state, devices, hyperparameters, microbatch, passes, trees, validation
from sam_optax.batch_arguments import BatchArguments, Call, cut
from sam_optax.division import Division
from sam_optax.method_states import BSAMState, states_in
from sam_optax.microbatch import PartResult
from sam_optax.passes import Gradient
from sam_optax.typing import Params, ScalarOrSchedule, State, Updates


def bsam(
    learning_rate: ScalarOrSchedule,
    num_examples: chex.Numeric,
    *,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    initial_scale: chex.Numeric = 1.0,
    damping: ScalarOrSchedule = 0.1,
    prior_precision: ScalarOrSchedule = 40.0,
) -> optax.GradientTransformationExtraArgs:
    """bSAM: Adam-like steps towards a flat minimum, and a posterior over the parameters, `N(w, 1 / (N s))`.

        m ← β1 m + (1 − β1) (h + δ w),  w ← w − η m / s,  s ← β2 s + (1 − β2) (√s |g| + γ + δ),  δ = precision / N

    The step divides by the value of `s` before the update, and has no bias correction. `h` and `|g|` are the results of
    `bsam_value_and_grad`, which computes the gradients at random points of the posterior. It is a complete
    optimizer: no other optimizer follows it in a chain. From "SAM as an Optimal Relaxation of Bayes" (Möllenhoff and
    Khan, 2023, https://arxiv.org/abs/2210.01620), whose CIFAR experiments use `learning_rate=0.5` with a warm-up and
    cosine decay.

    Args:
      learning_rate: the learning rate `η ≥ 0`; a number or a schedule over updates.
      num_examples: the number `N > 0` of training examples; with augmentation, the paper takes four times their number.
      b1: the weight of the past in the momentum, at least 0 and below 1; a number or a schedule over updates.
      b2: the weight of the past in the scale, at least 0 and below 1; a number or a schedule over updates.
      initial_scale: the scale `s > 0` before the first update.
      damping: the damping `γ ≥ 0`; a number or a schedule over updates.
      prior_precision: the precision of the prior, at least 0; a number or a schedule over updates.

    Returns:
      A complete optimizer. Its `update` takes `magnitude`, the third result of `bsam_value_and_grad`.

    Raises:
      ValueError: If a number is out of its range; in `update`, if `params` or `magnitude` is missing, or does not have
        the structure of the gradient.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_optax
      >>> tx = sam_optax.bsam(learning_rate=0.1, num_examples=1000)
      >>> value_and_grad = sam_optax.bsam_value_and_grad(lambda w, x: jnp.mean((x @ w) ** 2), rho=0.01, shards=2)
      >>> w, x = jnp.array([1.0, 2.0]), jnp.eye(2).repeat(2, axis=0)
      >>> state = tx.init(w)
      >>> loss, grads, magnitude = value_and_grad(w, state, jax.random.key(0), x)
      >>> updates, state = tx.update(grads, state, w, magnitude=magnitude)
      >>> w = optax.apply_updates(w, updates)
      >>> sample = sam_optax.bsam_sample(w, state, jax.random.key(1))  # parameters for a prediction
    """
    for name, value in (("learning_rate", learning_rate), ("damping", damping), ("prior_precision", prior_precision)):
        hyperparameters.check_nonnegative(name, value)
    for name, value in (("num_examples", num_examples), ("initial_scale", initial_scale)):
        hyperparameters.check_positive_number(name, value)
    for name, value in (("b1", b1), ("b2", b2)):
        hyperparameters.check_below_one(name, value)

    def init(params: Params) -> BSAMState:
        validation.check_whole(params)
        validation.check_real(params)
        momentum = trees.widen(trees.zeros_like(params))
        scale = jax.tree.map(lambda x: jnp.full_like(x, initial_scale), momentum)
        examples = jnp.array(num_examples, trees.accumulator_dtype(params))  # a copy, so that the state can be donated
        return BSAMState(jnp.zeros((), jnp.int32), momentum, scale, examples)

    def update(
        updates: Updates, state: State, params: Params | None = None, *, magnitude: Updates | None = None, **_: Any
    ) -> tuple[Updates, BSAMState]:
        wide, at, size = (trees.widen(tree) for tree in _checked(updates, params, magnitude))
        past, past_scale, rate, damp, precision = (
            hyperparameters.at(x, state.count) for x in (b1, b2, learning_rate, damping, prior_precision)
        )
        decay = precision / state.num_examples
        momentum = jax.tree.map(lambda m, h, w: past * m + (1 - past) * (h + decay * w), state.momentum, wide, at)
        step = jax.tree.map(lambda m, s: -rate * m / s, momentum, state.scale)
        scale = jax.tree.map(
            lambda s, g: past_scale * s + (1 - past_scale) * (jnp.sqrt(s) * g + damp + decay), state.scale, size
        )
        momentum, scale = trees.cast_like(momentum, state.momentum), trees.cast_like(scale, state.scale)
        after = BSAMState(trees.next_count(state.count), momentum, scale, state.num_examples)
        return trees.cast_like(step, updates), after

    return optax.GradientTransformationExtraArgs(init, update)


def bsam_sample(params: Params, state: State, key: jax.Array) -> Params:
    """Draws parameters from the posterior of `bsam`, `w + n / √(N s)` with standard normal `n`.

    The prediction of bSAM is the mean of the predicted probabilities over several draws.

    Args:
      params: the parameters `w`.
      state: the optimizer state, which holds a state of `bsam`.
      key: a random key.

    Returns:
      A tree like `params`.

    Raises:
      ValueError: If `state` does not hold exactly one state of `bsam`.

    Example:
      >>> import jax, jax.numpy as jnp, sam_optax
      >>> w = jnp.zeros(1000)
      >>> state = sam_optax.bsam(0.1, num_examples=100).init(w)
      >>> print(f"{sam_optax.bsam_sample(w, state, jax.random.key(0)).std():.2f}")
      0.10
    """
    found = _state_of_bsam(state)
    noise = _standard_normal(key, found.scale)
    return trees.shifted(params, jax.tree.map(lambda n, s: n / jnp.sqrt(found.num_examples * s), noise, found.scale))


def bsam_value_and_grad(
    loss_fn: Callable[..., Any],
    rho: ScalarOrSchedule = 0.01,
    shards: int = 8,
    *,
    batch_argnums: int | Sequence[int] | None = None,
    batch_argnames: str | Sequence[str] | None = None,
    state_argnum: int | None = None,
    has_aux: bool = False,
    axis_name: Any = None,
) -> Callable[..., tuple[Any, Updates, Updates]]:
    """The passes of bSAM: in each shard, a gradient at a random point, and one at the perturbed parameters.

        g_j = ∇L_j(w + n_j / √(N s)),  h_j = ∇L_j(w + ρ g_j / s),  h = mean of h_j,  |g| = mean of |g_j|

    `n_j` is standard normal. The perturbation is not normalised, and is smaller where the scale `s` is large. A step
    takes two gradients of the batch. On an accelerator the shards go through a `lax.scan`; on a CPU the loop is
    unrolled. From "SAM as an Optimal Relaxation of Bayes" (Möllenhoff and Khan, 2023,
    https://arxiv.org/abs/2210.01620).

    Args:
      loss_fn: `loss_fn(params, *args, **kwargs)` → scalar loss, the mean over a batch, or `(loss, aux)`.
      rho: the radius `ρ ≥ 0`, in units of a squared parameter over the loss; a number or a schedule over updates. 0.01
        in the paper's CIFAR experiments.
      shards: the number of shards that the batch is divided into, on each device; it must divide the batch.
      batch_argnums: which positional arguments are batches, counted after the key; see `value_and_grad`.
      batch_argnames: which keyword arguments are batches; see `value_and_grad`.
      state_argnum: the position of the argument, counted after the key, that holds the state of the model; see
        `value_and_grad`. The state is passed from shard to shard, and changes in the first pass only.
      has_aux: whether `loss_fn` returns `(loss, aux)`. Floating-point leaves of aux are averaged over the shards, and
        integer leaves are summed.
      axis_name: the device axis, or axes, under `jax.shard_map` to average over; each device has its own shards.

    Returns:
      `fn(params, state, key, *args, **kwargs)` → `(value, grads, magnitude)`. `state` is the optimizer state, which
      holds that of `bsam`; `key` is a random key, another one for each step; value is the loss at the random points,
      or `(loss, aux)`; `grads` is `h`, and `magnitude` is `|g|`, for the `update` of `bsam`.

    Raises:
      ValueError: If `loss_fn` is not callable, or an option is invalid. The returned function raises it if `shards`
        does not divide the batch, if `state` does not hold exactly one state of `bsam` or holds it inside
        `optax.MultiSteps`, or if aux does not contain the new state of the model.

    Example:
      >>> import jax, jax.numpy as jnp, sam_optax
      >>> value_and_grad = sam_optax.bsam_value_and_grad(lambda w, x: jnp.mean((x @ w) ** 2), rho=0.01, shards=2)
      >>> w, state = jnp.array([1.0, 2.0]), sam_optax.bsam(0.1, num_examples=1e12).init(jnp.ones(2))
      >>> loss, grads, magnitude = value_and_grad(w, state, jax.random.key(0), jnp.eye(2))
      >>> print(f"{loss:.2f}", *(f"{x:.2f}" for x in grads), *(f"{x:.2f}" for x in magnitude))
      2.50 1.02 2.04 1.00 2.00
    """
    hyperparameters.check_nonnegative("rho", rho)
    hyperparameters.check_count("shards", shards, "the number of shards that the batch is divided into")
    passes.check_function("loss_fn", loss_fn, "from parameters and a batch to a scalar loss")
    division = Division(shards, BatchArguments.create(batch_argnums, batch_argnames), axis_name)
    of_batch = _Passes(Gradient(passes.objective(loss_fn, has_aux, None, state_argnum), division), rho)

    def fn(params: Params, state: State, key: jax.Array, *args: Any, **kwargs: Any) -> Any:
        validation.check_one_method("state", state)
        found = _state_of_bsam(state)
        trees.check_alike("state", found.scale, params, "give the state of the optimizer of these parameters.")
        model_state, call = carried_state.split(Call(args, kwargs), state_argnum)
        result, model_state = of_batch(params, found, key, model_state, call)
        aux = carried_state.put(result.aux, model_state) if has_aux else None
        return ((result.loss, aux) if has_aux else result.loss), result.perturbed, result.magnitude

    return fn


class _Found(NamedTuple):
    """The passes over a shard, or their mean over all shards.

    Attributes:
      loss: the loss at the random point.
      aux: the auxiliary output, without the state of the model.
      perturbed: the gradient `h`.
      magnitude: `|g|`.
    """

    loss: jax.Array
    aux: Any
    perturbed: Updates
    magnitude: Updates


@dataclass(frozen=True)
class _Passes:
    """Both passes over every shard of a batch, and the mean over them and over the devices."""

    gradient: Gradient
    rho: ScalarOrSchedule

    def __call__(
        self, params: Params, state: BSAMState, key: jax.Array, model_state: Any, call: Call
    ) -> tuple[_Found, Any]:
        """The mean over all shards, and the state of the model after the last one."""
        division = self.gradient.division
        params = devices.vary(params, division.axis_name)
        if division.axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(division.axis_name))
        batches = division.batch.select(call)
        others = call.without(batches)

        def of_shard(part: tuple[Call, jax.Array], before: Any) -> PartResult:
            shard, number = part
            sample = bsam_sample(params, state, jax.random.fold_in(key, number))
            return self._of_shard((params, sample), state, before, call.put(shard), others)

        parts = cut(batches, division.parts, "shards"), jnp.arange(division.parts)
        return passes.over_devices(microbatch.reduce(of_shard, parts, model_state), division.axis_name)

    def _of_shard(
        self, points: tuple[Params, Params], state: BSAMState, before: Any, call: Call, others: Call
    ) -> PartResult:
        params, sample = points
        first = self.gradient.of_part(sample, before, call, others)
        loss, aux, sampled, _ = first.values
        rho = hyperparameters.at(self.rho, state.count)
        offset = jax.tree.map(lambda g, s: rho * g / s, trees.widen(sampled), state.scale)
        second = self.gradient.of_part(trees.shifted(params, offset), before, call, others)
        magnitude = jax.tree.map(jnp.abs, sampled)
        return first._replace(values=_Found(loss, aux, second.values.gradient, magnitude))


def _standard_normal(key: jax.Array, like: Updates) -> Updates:
    """Standard normal numbers with the structure, shapes and dtypes of `like`."""
    leaves, structure = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    drawn = [jax.random.normal(each, x.shape, x.dtype) for each, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, drawn)


def _state_of_bsam(state: State) -> BSAMState:
    found = [node for node in states_in(state) if isinstance(node, BSAMState)]
    if len(found) != 1:
        raise ValueError(f"state holds {len(found)} states of bsam, expected one: give the state of its optimizer.")
    return found[0]


def _checked(updates: Updates, params: Params | None, magnitude: Updates | None) -> tuple[Updates, Params, Updates]:
    if params is None or magnitude is None:
        missing = "params" if params is None else "magnitude"
        raise ValueError(
            f"{missing} is missing: call update(grads, state, params, magnitude=magnitude) with the results of "
            "sam_optax.bsam_value_and_grad."
        )
    trees.check_alike("updates", updates, params, "give the gradient with respect to these parameters.")
    trees.check_alike("magnitude", magnitude, params, "give the third result of sam_optax.bsam_value_and_grad.")
    return updates, params, magnitude
