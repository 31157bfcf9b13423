"""A second pass that measures the noise of both gradients, and how that comes out of an update."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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


class Recorder:
    """A `grad_fn` for one `update`: around the method it tells what the second pass measured.

    The method may make the second pass inside a `cond`, out of which nothing gets but what the branches return. So the
    method asks for the noise by `gradient_and_noise`, carries it out, and leaves it here by `record`.
    """

    def __init__(self, measured: MeasuredGradFn):
        self.measured = measured
        self.perturbed: NoiseTerms | None = None

    def __call__(self, params: Params) -> Updates:
        """The gradient at `params`."""
        return self.measured(params)


def gradient_and_noise(grad_fn: Callable[[Params], Updates], params: Params) -> tuple[Updates, NoiseTerms | None]:
    """The gradient at `params`, and its noise where somebody records it."""
    if not isinstance(grad_fn, Recorder):
        return grad_fn(params), None
    gradient, terms = grad_fn.measured.second_pass(params)
    return gradient, NoiseTerms(*(jnp.asarray(x, trees.accumulator_dtype(params)) for x in terms))


def no_noise(grad_fn: Any, params: Params) -> NoiseTerms | None:
    """What `gradient_and_noise` would say beside the gradient, for a step without a second pass: NaN, or None."""
    nan = jnp.asarray(jnp.nan, trees.accumulator_dtype(params))
    return NoiseTerms(nan, nan) if isinstance(grad_fn, Recorder) else None


def record(grad_fn: Any, terms: NoiseTerms | None) -> None:
    """Leave with the recorder, where there is one, what the step measured."""
    if isinstance(grad_fn, Recorder):
        grad_fn.perturbed = terms
