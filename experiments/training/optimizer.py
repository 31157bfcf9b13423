"""The optimizers of the study: a sharpness-aware method in front of a base optimizer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

import sam_optax


class Method(NamedTuple):
    """A way to estimate the gradient.

    Attributes:
      create: from `(rho, alpha)` to the transformation.
      uses: which of the two it reads.
      rho: the radius of its paper on convolutional networks.
      passes: gradient evaluations a step.
    """

    create: Callable[[Any, Any], optax.GradientTransformation]
    uses: tuple[str, ...]
    rho: float
    passes: int


METHODS = {
    "sgd": Method(lambda rho, alpha: optax.identity(), uses=(), rho=0.0, passes=1),
    "sam": Method(lambda rho, alpha: sam_optax.sam(rho), uses=("rho",), rho=0.05, passes=2),
    "gsam": Method(sam_optax.gsam, uses=("rho", "alpha"), rho=0.05, passes=2),
    "asam": Method(lambda rho, alpha: sam_optax.asam(rho), uses=("rho",), rho=0.5, passes=2),
}

BASES = ("sgd", "adamw")


def base_optimizer(name: str, learning_rate: Any, momentum: float, weight_decay: float) -> optax.GradientTransformation:
    """SGD with momentum and the weight decay added to the gradient, or AdamW with the decay apart from it."""
    if name == "adamw":
        return optax.adamw(learning_rate, weight_decay=weight_decay)
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate, momentum or None))


def create(method: str, base: str, momentum: float, weight_decay: float) -> optax.GradientTransformationExtraArgs:
    """The method in front of the base optimizer; `inject` sets its learning rate, `rho` and `alpha` at every step."""

    def chain(learning_rate: Any, rho: Any, alpha: Any) -> optax.GradientTransformation:
        estimate = METHODS[method].create(rho, alpha)
        return optax.chain(estimate, base_optimizer(base, learning_rate, momentum, weight_decay))

    return optax.inject_hyperparams(chain)(learning_rate=0.0, rho=0.0, alpha=0.0)


def inject(opt_state: Any, hyperparameters: dict[str, jax.Array]) -> Any:
    """`opt_state` with the hyperparameters of the next update."""
    return opt_state._replace(hyperparams=opt_state.hyperparams | hyperparameters)
