"""The optimizers of the study: a method, its base optimizer, and a running average of the weights."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import sam_optax
from experiments.training.methods import METHODS, Constants, Estimator, Hyperparameters, falling_bar

Optimizer = optax.GradientTransformationExtraArgs
"""An optimizer whose `update` takes what a method needs: `grad_fn`, `value` and `perturb`."""


class WeightAverageState(NamedTuple):
    """The state of `average_weights`.

    Attributes:
      count: of the updates.
      weight_average: the average, as the parameters.
      inner: the state of the optimizer.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]  # the name in Optax and in old checkpoints
    weight_average: Any
    inner: Any


def average_weights(tx: optax.GradientTransformation, decay: float) -> Optimizer:
    """The optimizer `tx`, beside which a running average of the parameters is kept; its updates are the same.

    With the parameters `w` after update `t = 1, 2, ...` the average goes on as `a ← d a + (1 − d) w`, with
    `d = min(decay, t / (t + 9))`: at first it is short, so that the initial parameters are soon forgotten.

    Args:
      tx: the optimizer.
      decay: the weight of the past in the long run, at least 0 and below 1.

    Returns:
      The optimizer; `weight_average(state)` finds the average in its state.
    """
    tx = optax.with_extra_args_support(tx)

    def init(params: Any) -> WeightAverageState:
        # a copy: two leaves of the training state that were one buffer could not be donated
        return WeightAverageState(jnp.zeros([], jnp.int32), jax.tree.map(jnp.copy, params), tx.init(params))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        updates, inner = tx.update(updates, state.inner, params, **extra)
        count = state.count + 1
        kept = jnp.minimum(decay, count / (count + 9))
        moved = optax.apply_updates(params, updates)
        average = jax.tree.map(lambda a, w: (kept * a + (1 - kept) * w).astype(a.dtype), state.weight_average, moved)
        return updates, WeightAverageState(count, average, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def weight_average(opt_state: Any) -> Any:
    """The average within the state of an optimizer that keeps one."""
    return optax.tree.get(opt_state, "weight_average")


BASES = ("sgd", "adamw")


class Settings(NamedTuple):
    """What an optimizer is made of.

    Attributes:
      method: of `METHODS`.
      base: of `BASES`.
      momentum: of SGD.
      weight_decay: of the base.
      ema: the weight of the past in the average of the parameters; 0 where none is kept.
      bar_steps: if the gradient decides on the second pass, the steps in which AE-SAM's bar falls. None: the step gets
        a static `perturb`.
      constants: of the method; None, those of its paper.
    """

    method: str
    base: str = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0
    ema: float = 0.0
    bar_steps: int | None = None
    constants: Constants | None = None


class Parted(NamedTuple):
    """A method, and the base optimizer behind it, each with a state of its own: for gradients made shard by shard."""

    estimator: Optimizer
    base: Optimizer

    def init(self, params: Any) -> tuple[Any, Any]:
        """The state of both."""
        return self.estimator.init(params), self.base.init(params)


def create(settings: Settings) -> Optimizer:
    """The method with its base optimizer; `inject` sets learning rate, `rho` and `alpha` at every step."""
    method = METHODS[settings.method]
    return _injected(lambda now: _averaged(method.create(_base(settings, now), now), settings), settings)


def create_parted(settings: Settings) -> Parted:
    """The same in its two parts, which only a method that is an estimator has."""
    base = _injected(lambda now: _averaged(_base(settings, now), settings), settings)
    return Parted(_injected(METHODS[settings.method].estimator, settings), base)


def inject(opt_state: Any, hyperparameters: dict[str, jax.Array]) -> Any:
    """`opt_state`, of a whole optimizer or of a parted one, with the hyperparameters of the next update."""
    if hasattr(opt_state, "hyperparams"):
        return opt_state._replace(hyperparams=opt_state.hyperparams | hyperparameters)
    return tuple(inject(part, hyperparameters) for part in opt_state)


def _injected(make: Estimator, settings: Settings) -> Optimizer:
    when = sam_optax.always() if settings.bar_steps is None else falling_bar(settings.bar_steps)
    constants = settings.constants or METHODS[settings.method].constants

    def with_values(learning_rate: Any, rho: Any, alpha: Any) -> optax.GradientTransformation:
        return make(Hyperparameters(rho, alpha, learning_rate, when, constants))

    return optax.inject_hyperparams(with_values)(learning_rate=0.0, rho=0.0, alpha=0.0)


def _base(settings: Settings, now: Hyperparameters) -> optax.GradientTransformation:
    """SGD with momentum and the weight decay added to the gradient, or AdamW with the decay apart from it."""
    if settings.base == "adamw":
        return optax.adamw(now.learning_rate, weight_decay=settings.weight_decay)
    decay = optax.add_decayed_weights(settings.weight_decay)
    return optax.chain(decay, optax.sgd(now.learning_rate, settings.momentum or None))


def _averaged(tx: optax.GradientTransformation, settings: Settings) -> optax.GradientTransformation:
    return average_weights(tx, settings.ema) if settings.ema else tx
