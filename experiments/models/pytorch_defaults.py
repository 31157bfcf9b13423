"""What the original networks leave to PyTorch: initial laws, and the constants of the normalisations."""

from functools import partial
from typing import Any

import jax
from flax import nnx
from jax.nn.initializers import Initializer, variance_scaling

kernel: Initializer = variance_scaling(1 / 3, "fan_in", "uniform")
"""He's uniform law with a = √5: uniform within ±1/√fan_in (He et al., 2015, https://arxiv.org/abs/1502.01852)."""


def _as_they_are(arrays: Any, *, dtype: Any, **_: Any) -> Any:
    """No cast: a normalisation takes statistics, scale and bias as they are kept, and rounds its result alone."""
    del dtype
    return arrays


BatchNorm = partial(nnx.BatchNorm, momentum=0.9, epsilon=1e-5, promote_dtype=_as_they_are)
LayerNorm = partial(nnx.LayerNorm, epsilon=1e-5, promote_dtype=_as_they_are)


def bias(fan_in: int) -> Initializer:
    """The law of a linear layer's bias: uniform within ±1/√fan_in."""
    return partial(jax.random.uniform, minval=-(fan_in**-0.5), maxval=fan_in**-0.5)
