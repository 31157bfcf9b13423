"""The methods that can be trained with, by the names of the command line."""

from collections.abc import Callable
from typing import Any, NamedTuple

import optax

import sam_optax
from sam_optax import Policy


class Hyperparameters(NamedTuple):
    """What a method may read: its radius, its weight, the learning rate, and when the gradient decides the policy."""

    rho: Any
    alpha: Any
    learning_rate: Any
    when: Policy


Create = Callable[[optax.GradientTransformation, Hyperparameters], optax.GradientTransformation]


class Method(NamedTuple):
    """A way to estimate the gradient.

    Attributes:
      title: as its paper writes it.
      create: from the base optimizer and the hyperparameters to the whole one.
      uses: which of `rho` and `alpha` it reads.
      rho: the radius of its paper on convolutional networks.
      alpha: its weight there.
      momentum: of SGD, where nothing is said.
      when: the steps that make its second pass, as `policies.parse` reads it.
      passes: gradient evaluations of such a step.
      functional: whether its second pass is that of Functional SAM.
      evaluated: from the optimizer's state and the parameters to those that are evaluated.
    """

    title: str
    create: Create
    uses: tuple[str, ...] = ("rho",)
    rho: float = 0.05
    alpha: float = 0.02
    momentum: float = 0.0
    when: str = "always"
    passes: int = 2
    functional: bool = False
    evaluated: Callable[[Any, Any], Any] = lambda opt_state, params: params


def _in_front(make: Callable[[Hyperparameters], optax.GradientTransformation]) -> Create:
    return lambda base, now: optax.chain(make(now), base)


def _look_sam(now: Hyperparameters) -> optax.GradientTransformation:
    return sam_optax.sharpness_aware(sam_optax.normalized_ascent(now.rho), sam_optax.reuse(now.alpha), now.when)


METHODS: dict[str, Method] = {
    "sgd": Method("SGD", lambda base, now: base, uses=(), rho=0.0, passes=1),
    "sam": Method("SAM", _in_front(lambda now: sam_optax.sam(now.rho, when=now.when))),
    "gsam": Method(
        "GSAM", _in_front(lambda now: sam_optax.gsam(now.rho, now.alpha, when=now.when)), uses=("rho", "alpha")
    ),
    "gsam_clean": Method(
        "GSAM, clean form",
        _in_front(lambda now: sam_optax.gsam(now.rho, now.alpha, minimize="clean", when=now.when)),
        uses=("rho", "alpha"),
    ),
    "asam": Method("ASAM", _in_front(lambda now: sam_optax.asam(now.rho, when=now.when)), rho=0.5),
    "ported_asam": Method(
        "ASAM, ported", _in_front(lambda now: sam_optax.ported_asam(now.rho, when=now.when)), rho=2.0
    ),
    "friendly_sam": Method("F-SAM", _in_front(lambda now: sam_optax.friendly_sam(now.rho, when=now.when)), rho=0.1),
    "vasso": Method("VaSSO", _in_front(lambda now: sam_optax.vasso(now.rho, when=now.when))),
    "look_sam": Method("LookSAM", _in_front(_look_sam), uses=("rho", "alpha"), rho=0.1, alpha=0.7, when="every:5"),
    "wsam": Method("WSAM", _in_front(lambda now: sam_optax.wsam(now.rho, when=now.when))),
    "wsam_decoupled": Method(
        "WSAM, decoupled",
        lambda base, now: sam_optax.wsam_decoupled(base, now.learning_rate, now.rho, when=now.when),
    ),
    "unified_sam": Method("Unified SAM", _in_front(lambda now: sam_optax.unified_sam(now.rho, when=now.when))),
    "unnormalized_sam": Method(
        "SAM, unnormalised", _in_front(lambda now: sam_optax.unified_sam(now.rho, lam=0.0, when=now.when))
    ),
    "stable_sam": Method("StableSAM", _in_front(lambda now: sam_optax.stable_sam(now.rho, when=now.when))),
    "functional_sam": Method(
        "Functional SAM", _in_front(lambda now: sam_optax.sam(now.rho, when=now.when)), functional=True
    ),
    "msam": Method(
        "MSAM",
        lambda base, now: sam_optax.msam(base, now.rho),
        rho=0.3,
        momentum=0.9,
        passes=1,
        evaluated=sam_optax.msam_eval_params,
    ),
}
"""In the order of the tables: the base optimizer alone, under the name `sgd` whatever it is, and the methods."""
