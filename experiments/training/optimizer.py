"""The optimizers of the study: a method with its base optimizer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

import sam_optax
from experiments.training.methods import METHODS, Hyperparameters
from experiments.training.weight_average import average_weights
from sam_optax import Policy

BASES = ("sgd", "adamw")


def base_optimizer(name: str, learning_rate: Any, momentum: float, weight_decay: float) -> optax.GradientTransformation:
    """SGD with momentum and the weight decay added to the gradient, or AdamW with the decay apart from it."""
    if name == "adamw":
        return optax.adamw(learning_rate, weight_decay=weight_decay)
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate, momentum or None))


class Settings(NamedTuple):
    """What an optimizer is made of.

    Attributes:
      method: of `METHODS`.
      base: of `BASES`.
      momentum: of SGD.
      weight_decay: of the base.
      ema: the weight of the past in the average of the parameters; 0 where none is kept.
      when: the policy where the gradient decides; others give the step its static `perturb`.
      ascent_steps: of the method.
    """

    method: str
    base: str = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0
    ema: float = 0.0
    when: Policy = sam_optax.always()
    ascent_steps: int = 1


class Parted(NamedTuple):
    """A method, and the base optimizer behind it, each with a state of its own: for gradients made shard by shard."""

    estimator: optax.GradientTransformationExtraArgs
    base: optax.GradientTransformationExtraArgs

    def init(self, params: Any) -> tuple[Any, Any]:
        """The state of both."""
        return self.estimator.init(params), self.base.init(params)


def create(settings: Settings) -> optax.GradientTransformationExtraArgs:
    """The method with its base optimizer; `inject` sets learning rate, `rho` and `alpha` at every step."""

    def whole(now: Hyperparameters) -> optax.GradientTransformation:
        return _averaged(METHODS[settings.method].create(_base(settings, now), now), settings)

    return _injected(whole, settings)


def create_parted(settings: Settings) -> Parted:
    """The same in its two parts, which only a method that is an estimator has."""
    estimator = METHODS[settings.method].estimator
    return Parted(
        _injected(estimator, settings), _injected(lambda now: _averaged(_base(settings, now), settings), settings)
    )


def inject(opt_state: Any, hyperparameters: dict[str, jax.Array]) -> Any:
    """`opt_state`, of a whole optimizer or of a parted one, with the hyperparameters of the next update."""
    if hasattr(opt_state, "hyperparams"):
        return opt_state._replace(hyperparams=opt_state.hyperparams | hyperparameters)
    return tuple(inject(part, hyperparameters) for part in opt_state)


def _injected(
    make: Callable[[Hyperparameters], optax.GradientTransformation], settings: Settings
) -> optax.GradientTransformationExtraArgs:
    def with_values(learning_rate: Any, rho: Any, alpha: Any) -> optax.GradientTransformation:
        return make(Hyperparameters(rho, alpha, learning_rate, settings.when, settings.ascent_steps))

    return optax.inject_hyperparams(with_values)(learning_rate=0.0, rho=0.0, alpha=0.0)


def _base(settings: Settings, now: Hyperparameters) -> optax.GradientTransformation:
    return base_optimizer(settings.base, now.learning_rate, settings.momentum, settings.weight_decay)


def _averaged(tx: optax.GradientTransformation, settings: Settings) -> optax.GradientTransformation:
    return average_weights(tx, settings.ema) if settings.ema else tx
