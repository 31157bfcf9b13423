"""The optimizers of the study: a method with its base optimizer."""

from typing import Any

import jax
import optax

import sam_optax
from experiments.training.methods import METHODS, Hyperparameters
from sam_optax import Policy

BASES = ("sgd", "adamw")


def base_optimizer(name: str, learning_rate: Any, momentum: float, weight_decay: float) -> optax.GradientTransformation:
    """SGD with momentum and the weight decay added to the gradient, or AdamW with the decay apart from it."""
    if name == "adamw":
        return optax.adamw(learning_rate, weight_decay=weight_decay)
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate, momentum or None))


def create(
    method: str, base: str, momentum: float, weight_decay: float, when: Policy = sam_optax.always()
) -> optax.GradientTransformationExtraArgs:
    """The method with its base optimizer; `inject` sets learning rate, `rho` and `alpha` at every step.

    Args:
      method: of `METHODS`.
      base: of `BASES`.
      momentum: of SGD.
      weight_decay: of the base.
      when: the policy where the gradient decides; others give the step its static `perturb`.

    Returns:
      The optimizer.
    """

    def whole(learning_rate: Any, rho: Any, alpha: Any) -> optax.GradientTransformation:
        inner = base_optimizer(base, learning_rate, momentum, weight_decay)
        return METHODS[method].create(inner, Hyperparameters(rho, alpha, learning_rate, when))

    return optax.inject_hyperparams(whole)(learning_rate=0.0, rho=0.0, alpha=0.0)


def inject(opt_state: Any, hyperparameters: dict[str, jax.Array]) -> Any:
    """`opt_state` with the hyperparameters of the next update."""
    return opt_state._replace(hyperparams=opt_state.hyperparams | hyperparameters)
