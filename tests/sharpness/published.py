"""A BatchNorm network, its data, and its worst-case sharpness according to the published script.

`tests/golden/published_sharpness.npz` was made in float64 by the script of Andriushchenko et al. (2023), on a CPU:
three batches of 32 images, from `δ = 0`. Each value comes with the number of halved step sizes.
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

_FILE = Path(__file__).parents[1] / "golden" / "published_sharpness.npz"
_STORED = dict(np.load(_FILE))
_PARAMS = ("c1_weight", "b1_weight", "b1_bias", "c2_weight", "b2_weight", "b2_bias", "l_weight", "l_bias")
_BATCH = 32


class Case(NamedTuple):
    """The settings of a run of the script, and its result."""

    norm: str
    adaptive: bool
    rho: float
    steps: int
    sharpness: float
    halvings: int


def _cases() -> list[Case]:
    cases = []
    for text, value, halvings in zip(_STORED["cases"], _STORED["values"], _STORED["halvings"], strict=True):
        norm, adaptive, rho, steps = str(text).split(",")
        cases.append(Case(norm, adaptive == "True", float(rho), int(steps), float(value), int(halvings)))
    return cases


CASES = _cases()


def params() -> dict[str, jax.Array]:
    """The trained parameters, in the layout of PyTorch."""
    return {name: jnp.asarray(_STORED[name]) for name in _PARAMS}


def batches() -> list[tuple[jax.Array, jax.Array]]:
    """Images `(32, 1, 6, 6)` and labels."""
    images, labels = jnp.asarray(_STORED["X"]), jnp.asarray(_STORED["Y"])
    return [(images[i : i + _BATCH], labels[i : i + _BATCH]) for i in range(0, len(labels), _BATCH)]


def loss_fn(params: dict[str, jax.Array], batch: tuple[jax.Array, jax.Array]) -> jax.Array:
    """The cross-entropy with BatchNorm in inference mode."""
    features, labels = batch
    for layer in "12":
        features = jax.lax.conv_general_dilated(features, params[f"c{layer}_weight"], (1, 1), "SAME")
        features = jax.nn.relu(_normalized(features, layer, params))
    logits = features.mean((2, 3)) @ params["l_weight"].T + params["l_bias"]
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def _normalized(features: jax.Array, layer: str, params: dict[str, jax.Array]) -> jax.Array:
    mean, variance, scale, bias = (
        x[:, None, None]
        for x in (
            _STORED[f"b{layer}_running_mean"],
            _STORED[f"b{layer}_running_var"],
            params[f"b{layer}_weight"],
            params[f"b{layer}_bias"],
        )
    )
    return (features - mean) / jnp.sqrt(variance + 1e-5) * scale + bias
