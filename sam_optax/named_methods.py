"""The methods by name, for programs that choose one by a setting."""

import inspect
from collections.abc import Callable
from typing import Any

import optax

from sam_optax.methods.bayesian_sam import bsam
from sam_optax.methods.combined_gradients import gsam, look_sam, stable_sam, wsam, wsam_decoupled
from sam_optax.methods.explicit_sam import xsam
from sam_optax.methods.momentum_sam import msam
from sam_optax.methods.polyak_sam import sam_sps
from sam_optax.methods.sam_family import asam, friendly_sam, le_sam, ported_asam, sam, unified_sam, vasso

_METHODS: dict[str, Callable[..., optax.GradientTransformationExtraArgs]] = {
    method.__name__: method
    for method in (
        *(sam, gsam, asam, ported_asam, friendly_sam, vasso, wsam, wsam_decoupled, stable_sam, unified_sam, le_sam),
        *(xsam, look_sam, msam, sam_sps, bsam),
    )
}


def names() -> tuple[str, ...]:
    """Returns the names of all methods, which are those of the functions that create them.

    `msam`, `wsam_decoupled`, `sam_sps` and `bsam` are complete optimizers. All others precede an optimizer in a chain.

    Example:
      >>> import sam_optax
      >>> sam_optax.names()[:3]
      ('sam', 'gsam', 'asam')
    """
    return tuple(_METHODS)


def create(name: str, **options: Any) -> optax.GradientTransformationExtraArgs:
    """Creates a method by its name: `create("gsam", rho=0.1)` is `gsam(rho=0.1)`.

    Args:
      name: an element of `names()`.
      **options: the arguments of the function with this name, each by its name. `msam` and `wsam_decoupled` need their
        base optimizer, and `bsam` its learning rate and the number of examples.

    Returns:
      The method. `msam`, `wsam_decoupled`, `sam_sps` and `bsam` are complete optimizers, after which no other optimizer
      follows. Every other method precedes one.

    Raises:
      ValueError: If no method has the name, if the method has no such option, if a required one is missing, or if the
        method refuses a value.

    Example:
      >>> import optax, sam_optax
      >>> method = sam_optax.create("gsam", rho=0.1, alpha=0.05)
      >>> tx = optax.chain(method, optax.sgd(0.1, momentum=0.9))
    """
    if name not in _METHODS:
        raise ValueError(f"name is {name!r}: choose one of {', '.join(_METHODS)}.")
    parameters = inspect.signature(_METHODS[name]).parameters
    for option, value in options.items():
        if option not in parameters:
            raise ValueError(f"{option} is {value!r}, and {name} has only {', '.join(parameters)}: omit it.")
    for option, parameter in parameters.items():
        if parameter.default is parameter.empty and option not in options:
            raise ValueError(f"{option} is missing: give it, since {name} has no default for it.")
    return _METHODS[name](**options)
