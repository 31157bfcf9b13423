"""The optimizers of the study: a method, its base optimizer, and a running average of the parameters."""

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
      count: the number of updates.
      weight_average: the average, with the structure of the parameters.
      inner: the state of the wrapped optimizer.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]  # the name used by Optax and old checkpoints
    weight_average: Any
    inner: Any


def average_weights(tx: optax.GradientTransformation, decay: float) -> Optimizer:
    """Wraps the optimizer `tx` to keep a running average of the parameters; its updates do not change.

    With the parameters `w` after update `t = 1, 2, ...` the average is updated as `a ← d a + (1 − d) w`, with
    `d = min(decay, t / (t + 9))`: it is short at first, so that the initial parameters are soon forgotten.

    Args:
      tx: the optimizer.
      decay: the weight of the past after many updates, at least 0 and below 1.

    Returns:
      The optimizer; `weight_average(state)` returns the average from its state.
    """
    tx = optax.with_extra_args_support(tx)

    def init(params: Any) -> WeightAverageState:
        # a copy, because two leaves of the training state that share a buffer cannot be donated
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
    """Returns the average from the state of an optimizer that keeps one."""
    return optax.tree.get(opt_state, "weight_average")


BASES = ("sgd", "adamw")


class Settings(NamedTuple):
    """The settings of an optimizer.

    Attributes:
      method: the method, a key of `METHODS`.
      base: the base optimizer, one of `BASES`.
      momentum: the momentum of SGD.
      weight_decay: the weight decay of the base optimizer.
      ema: the weight of the past in the running average of the parameters; 0: no average is kept.
      bar_steps: the number of steps over which AE-SAM's threshold falls, if the gradient decides on the second pass.
        None: the step gets a static `perturb`.
      constants: the constants of the method; None: those of its paper.
      posterior: the settings of bSAM's posterior; None for other methods.
    """

    method: str
    base: str = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0
    ema: float = 0.0
    bar_steps: int | None = None
    constants: Constants | None = None
    posterior: "Posterior | None" = None


class Posterior(NamedTuple):
    """The settings of bSAM's posterior.

    Attributes:
      num_examples: the number of training examples.
      seed: the seed of the random points at which gradients are computed.
    """

    num_examples: float
    seed: int


class Parted(NamedTuple):
    """A method and its base optimizer, each with a separate state, for gradients that are computed shard by shard."""

    estimator: Optimizer
    base: Optimizer

    def init(self, params: Any) -> tuple[Any, Any]:
        """Returns the states of the method and the base optimizer."""
        return self.estimator.init(params), self.base.init(params)


def create(settings: Settings) -> Optimizer:
    """Returns the method with its base optimizer; `inject` sets the learning rate, `rho` and `alpha` at every step."""
    method = METHODS[settings.method]
    return _injected(lambda now: _averaged(method.create(_base(settings, now), now), settings), settings)


def create_parted(settings: Settings) -> Parted:
    """Returns the method and its base optimizer as two parts; the method must be an estimator (`is_estimator`)."""
    base = _injected(lambda now: _averaged(_base(settings, now), settings), settings)
    return Parted(_injected(METHODS[settings.method].estimator, settings), base)


def inject(opt_state: Any, hyperparameters: dict[str, jax.Array]) -> Any:
    """Returns the state of an optimizer, whole or `Parted`, with the hyperparameters of the next update set."""
    if hasattr(opt_state, "hyperparams"):
        return opt_state._replace(hyperparams=opt_state.hyperparams | hyperparameters)
    return tuple(inject(part, hyperparameters) for part in opt_state)


def _injected(make: Estimator, settings: Settings) -> Optimizer:
    when = sam_optax.always() if settings.bar_steps is None else falling_bar(settings.bar_steps)
    constants = settings.constants or METHODS[settings.method].constants

    def with_values(learning_rate: Any, rho: Any, alpha: Any) -> optax.GradientTransformation:
        examples = settings.posterior.num_examples if settings.posterior else 1.0
        return make(Hyperparameters(rho, alpha, learning_rate, when, constants, settings.weight_decay, examples))

    return optax.inject_hyperparams(with_values)(learning_rate=0.0, rho=0.0, alpha=0.0)


def _base(settings: Settings, now: Hyperparameters) -> optax.GradientTransformation:
    """Returns SGD with momentum and weight decay added to the gradient, or AdamW, whose weight decay is decoupled."""
    if settings.base == "adamw":
        return optax.adamw(now.learning_rate, weight_decay=settings.weight_decay)
    decay = optax.add_decayed_weights(settings.weight_decay)
    return optax.chain(decay, optax.sgd(now.learning_rate, settings.momentum or None))


def _averaged(tx: optax.GradientTransformation, settings: Settings) -> optax.GradientTransformation:
    return average_weights(tx, settings.ema) if settings.ema else tx
