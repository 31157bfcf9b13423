"""A second pass that measures the noise of both gradients, and how the noise comes out of an update."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sam_optax import trees
from sam_optax.noise_scale import NoiseTerms
from sam_optax.typing import Params, Updates


@functools.partial(jax.tree_util.register_dataclass, data_fields=["clean", "second_pass"], meta_fields=[])
@dataclass(frozen=True)
class MeasuredGradFn:
    """A `grad_fn` that also knows the noise: a pytree, as that of `value_and_grad` is.

    Attributes:
      clean: the noise of the clean gradient.
      second_pass: from parameters to `(gradient, its noise)`.
    """

    clean: NoiseTerms
    second_pass: Callable[[Params], tuple[Updates, NoiseTerms]]

    def __call__(self, params: Params) -> Updates:
        """The gradient at `params`."""
        return self.second_pass(params)[0]


class PerturbedNoise(NamedTuple):
    """The noise of the second gradient, as it comes out of a step.

    Attributes:
      terms: zeros where the step made no second pass.
      measured: whether it made one, a bool.
    """

    terms: NoiseTerms
    measured: jax.Array


class Recorder:
    """A `grad_fn` for one `update`, in which the method leaves the noise that its second pass measured.

    The method may make the second pass inside a `cond`, and only what the branches return gets out of it. So the method
    asks for the noise by `gradient_and_noise`, returns it from the branch, and leaves it here by `record`.
    """

    def __init__(self, measured: MeasuredGradFn):
        self.measured = measured
        self.perturbed: PerturbedNoise | None = None

    def __call__(self, params: Params) -> Updates:
        """The gradient at `params`."""
        return self.measured(params)


def gradient_and_noise(grad_fn: Callable[[Params], Updates], params: Params) -> tuple[Updates, PerturbedNoise | None]:
    """The gradient at `params`, and its noise where `grad_fn` is a recorder."""
    if not isinstance(grad_fn, Recorder):
        return grad_fn(params), None
    gradient, terms = grad_fn.measured.second_pass(params)
    wide = NoiseTerms(*(jnp.asarray(x, trees.accumulator_dtype(params)) for x in terms))
    return gradient, PerturbedNoise(wide, jnp.ones((), bool))


def no_noise(grad_fn: Any, params: Params) -> PerturbedNoise | None:
    """What `gradient_and_noise` returns with the gradient, for a step without a second pass."""
    zero = jnp.zeros((), trees.accumulator_dtype(params))
    return PerturbedNoise(NoiseTerms(zero, zero), jnp.zeros((), bool)) if isinstance(grad_fn, Recorder) else None


def record(grad_fn: Any, noise: PerturbedNoise | None) -> None:
    """Leave what the step measured in `grad_fn`, where it is a recorder."""
    if isinstance(grad_fn, Recorder):
        grad_fn.perturbed = noise
