"""Numbers that may follow a schedule: how they are checked, and how they are read."""

import math
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from sam_optax.typing import Params, ScalarOrSchedule


class CountState(NamedTuple):
    """The number of updates so far, int32: where a schedule is read."""

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]


def init(params: Params) -> CountState:
    """The state before the first update."""
    del params
    return CountState(count=jnp.zeros((), jnp.int32))


def advance(state: CountState) -> CountState:
    """The state one update later; the count stops at the largest int32 and does not wrap."""
    return CountState(count=jnp.asarray(optax.safe_increment(state.count)))


def check_nonnegative(name: str, value: ScalarOrSchedule) -> None:
    """Raise `ValueError` unless `value` is a finite number of at least zero, or a schedule that starts with one.

    Traced values pass: inside `jax.jit` there is no number to look at.
    """
    start = at(value, np.int32(0))
    what = f"{name}, a schedule, is {start!r} at its first step" if callable(value) else f"{name} is {start!r}"
    if isinstance(start, Tracer):
        return
    if not _is_number(start):
        raise ValueError(f"{what}: give a number, or an Optax schedule from the number of updates to one.")
    if not math.isfinite(float(start)) or float(start) < 0.0:
        raise ValueError(f"{what}: give a finite number of at least 0.")


def check_nonnegative_number(name: str, value: chex.Numeric) -> None:
    """Raise `ValueError` unless `value` is a finite number of at least zero; a schedule is none."""
    if callable(value):
        raise ValueError(f"{name} is {value!r}: give a number, it follows no schedule.")
    check_nonnegative(name, value)


def at(value: ScalarOrSchedule, count: Any) -> Any:
    """The number that `value` stands for after `count` updates."""
    return value(count) if callable(value) else value


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, int | float):
        return True
    if not hasattr(value, "dtype") or jnp.shape(value) != ():
        return False
    return jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)
