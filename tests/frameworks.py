"""The parameters of one small network in four frameworks."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
from flax import linen, nnx


class NnxNet(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(1, 2, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.blocks = nnx.List([nnx.Linear(2, 3, rngs=rngs), nnx.Linear(3, 2, use_bias=False, rngs=rngs)])


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = linen.Conv(2, (3, 3), name="conv")(x)
        x = linen.BatchNorm(use_running_average=False, name="norm")(x)
        x = linen.Dense(3, name="blocks_0")(x)
        return linen.Dense(2, use_bias=False, name="blocks_1")(x)


class EquinoxNet(eqx.Module):
    conv: eqx.nn.Conv2d
    norm: eqx.nn.LayerNorm
    blocks: list[eqx.nn.Linear]

    def __init__(self) -> None:
        key = jax.random.key(0)
        self.conv = eqx.nn.Conv2d(1, 2, 3, key=key)
        self.norm = eqx.nn.LayerNorm(2)
        self.blocks = [eqx.nn.Linear(2, 3, key=key), eqx.nn.Linear(3, 2, use_bias=False, key=key)]


def haiku_net(x: jax.Array) -> jax.Array:
    x = hk.Conv2D(2, 3, name="conv")(x)
    x = hk.LayerNorm(axis=-1, create_scale=True, create_offset=True, name="norm")(x)
    return hk.Linear(2, with_bias=False, name="blocks_1")(hk.Linear(3, name="blocks_0")(x))


IMAGE = (1, 4, 4, 1)

FRAMEWORKS: dict[str, Callable[[], Any]] = {
    "nnx": lambda: nnx.state(NnxNet(), nnx.Param),
    "linen": lambda: LinenNet().init(jax.random.key(0), jnp.ones(IMAGE))["params"],
    "equinox": lambda: eqx.filter(EquinoxNet(), eqx.is_inexact_array),
    "haiku": lambda: hk.transform(haiku_net).init(jax.random.key(0), jnp.ones(IMAGE)),
}

PATHS = {
    "nnx": [
        "blocks/0/bias",
        "blocks/0/kernel",
        "blocks/1/kernel",
        "conv/bias",
        "conv/kernel",
        "norm/bias",
        "norm/scale",
    ],
    "linen": [
        "blocks_0/bias",
        "blocks_0/kernel",
        "blocks_1/kernel",
        "conv/bias",
        "conv/kernel",
        "norm/bias",
        "norm/scale",
    ],
    "equinox": [
        "conv/weight",
        "conv/bias",
        "norm/weight",
        "norm/bias",
        "blocks/0/weight",
        "blocks/0/bias",
        "blocks/1/weight",
    ],
    "haiku": ["blocks_0/b", "blocks_0/w", "blocks_1/w", "conv/b", "conv/w", "norm/offset", "norm/scale"],
}

BIASES = {
    "nnx": {"blocks/0/bias", "conv/bias", "norm/bias"},
    "linen": {"blocks_0/bias", "conv/bias", "norm/bias"},
    "equinox": {"blocks/0/bias", "conv/bias", "norm/bias"},
    "haiku": {"blocks_0/b", "conv/b"},
}
