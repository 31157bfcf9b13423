"""Learning rates over epochs: what decays, decays with the data seen."""

from collections.abc import Callable
from typing import Any

import optax

FINAL_FRACTION = 0.01  # of the initial rate: where the paper's cosine ends


def _constant(rate: float, epochs: int) -> optax.Schedule:
    del epochs
    return optax.constant_schedule(rate)


def _cosine(rate: float, epochs: int) -> optax.Schedule:
    return optax.cosine_decay_schedule(rate, epochs, alpha=FINAL_FRACTION)


def _linear(rate: float, epochs: int) -> optax.Schedule:
    return optax.linear_schedule(rate, FINAL_FRACTION * rate, epochs)


SCHEDULES: dict[str, Callable[[float, int], Callable[[Any], Any]]] = {
    "constant": _constant,
    "cosine": _cosine,
    "linear": _linear,
}
