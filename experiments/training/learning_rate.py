"""Learning-rate schedules over epochs, so that the decay depends on the number of examples seen.

A rate is a function of the position `t` in epochs, a float, in a run of `E` epochs of which the first `w` are warm-up.
With `s = t − w` and `S = E − w` it is, in units of the initial rate:

    constant              1
    cosine                0.01 + 0.99 (1 + cos(π s/S))/2
    linear                1 − 0.99 s/S
    polynomial:p          0.01 + 0.99 (1 − s/S)ᵖ
    inverse_sqrt          1/√(1 + s)
    steps:f:e₁,e₂         f to the power of how many of e₁, e₂ are past, in epochs from the start of the run
    warm_restarts:TxF     the cosine over T epochs, then over F·T, F²·T, ... (F is 1 by default)

During the warm-up it is `0.01 + 0.99 t/w`.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

FINAL_FRACTION = 0.01  # of the initial rate: the end of the paper's cosine, and the start of its warm-up

_LARGEST = float(np.finfo(np.float32).max)
_MOST_PERIODS = 1000
_REMEDY = "give constant, cosine, linear, polynomial:2, inverse_sqrt, steps:0.2:60,120 or warm_restarts:10x2."

NAMES = ("constant", "cosine", "linear", "polynomial", "inverse_sqrt", "steps", "warm_restarts")
"""The kinds of schedules, in the order of the tables."""

Rate = Callable[[Any], Any]


def _cosine(epochs: Any) -> Rate:
    return optax.cosine_decay_schedule(1.0, epochs, alpha=FINAL_FRACTION)


def _warm_restarts(numbers: str, epochs: float) -> Rate:
    period, _, factor = numbers.partition("x")
    lengths, growth = [_positive(period)], _positive(factor or "1")
    if growth < 1 or lengths[0] * _MOST_PERIODS < epochs:
        raise ValueError(_REMEDY)
    while sum(lengths) < epochs:
        lengths.append(growth * lengths[-1])
    return optax.join_schedules([_cosine(length) for length in lengths], np.cumsum(lengths[:-1]).tolist())


def _steps(numbers: str, warmup: float) -> Rate:
    factor, _, ends = numbers.partition(":")
    scale, past = _positive(factor), np.asarray([_positive(end) - warmup for end in ends.split(",")])
    return lambda t: scale ** jnp.sum(jnp.asarray(t)[..., None] >= past, -1)


def parse(text: str, rate: float, epochs: float, warmup_epochs: float = 0.0) -> Rate:
    """Returns the schedule that `text` names.

    Args:
      text: `constant`, `cosine`, `linear`, `polynomial:POWER`, `inverse_sqrt`, `steps:FACTOR:EPOCH,EPOCH` or
        `warm_restarts:EPOCHS`, `warm_restarts:EPOCHSxFACTOR`.
      rate: the initial rate.
      epochs: the number of epochs of the run.
      warmup_epochs: the number of first epochs in which the rate rises linearly, from 1% of the initial rate.

    Returns:
      A function from positions in epochs, of any shape, to the rate there.

    Raises:
      ValueError: If `text` has another form or a number out of range, or if the warm-up is not shorter than the run.
    """
    if not warmup_epochs < epochs:
        raise ValueError(f"warmup_epochs is {warmup_epochs} of {epochs} epochs: give fewer.")
    try:
        after = _after_warmup(text, epochs - warmup_epochs, warmup_epochs)
    except (ValueError, KeyError) as error:
        raise ValueError(f"lr_schedule is {text!r}: {_REMEDY}") from error
    if warmup_epochs:
        warmup: Any = warmup_epochs  # may be a fraction, although Optax annotates an integer
        after = optax.join_schedules([optax.linear_schedule(FINAL_FRACTION, 1.0, warmup), after], [warmup])
    return lambda position: rate * after(position)


def _after_warmup(text: str, epochs: Any, warmup: float) -> Rate:
    """Returns the rate after the warm-up, in units of the initial rate, over the remaining epochs."""
    name, colon, numbers = text.partition(":")
    rates: dict[str, Callable[[], Rate]] = {
        "constant": lambda: optax.constant_schedule(1.0),
        "cosine": lambda: _cosine(epochs),
        "linear": lambda: optax.linear_schedule(1.0, FINAL_FRACTION, epochs),
        "inverse_sqrt": lambda: lambda t: 1.0 / jnp.sqrt(1.0 + t),
        "polynomial:": lambda: optax.polynomial_schedule(1.0, FINAL_FRACTION, _positive(numbers), epochs),
        "steps:": lambda: _steps(numbers, warmup),
        "warm_restarts:": lambda: _warm_restarts(numbers, epochs),
    }
    return rates[name + colon]()


def name_of(text: str) -> str:
    """Returns the schedule's kind, without its numbers."""
    return text.partition(":")[0]


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value <= _LARGEST:
        raise ValueError(_REMEDY)
    return value
