"""Numbers that may follow a schedule: how they are checked, and how they are read."""

import math
from collections.abc import Callable
from numbers import Integral
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from sam_optax import trees
from sam_optax.typing import Params, ScalarOrSchedule

_LARGEST = float(np.finfo(np.float32).max)


class CountState(NamedTuple):
    """The number of updates so far, int32, at which a schedule is read."""

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]


def init(params: Params) -> CountState:
    """The state before the first update."""
    del params
    return CountState(count=jnp.zeros((), jnp.int32))


def advance(state: CountState) -> CountState:
    """The state one update later."""
    return CountState(count=trees.next_count(state.count))


def check_number(name: str, value: ScalarOrSchedule) -> None:
    """Raises `ValueError` unless `value` is a finite number, or a schedule that starts with one."""
    _check(name, value, lambda number: True, "a finite number")


def check_nonnegative(name: str, value: ScalarOrSchedule) -> None:
    """Raises `ValueError` unless `value` is a finite number of at least zero, or a schedule that starts with one.

    Traced values pass, since their numbers are not known inside `jax.jit`.
    """
    _check(name, value, lambda number: number >= 0.0, "a finite number of at least 0")


def check_fraction(name: str, value: ScalarOrSchedule) -> None:
    """Raises `ValueError` unless `value` is a number from 0 to 1, or a schedule that starts with one."""
    _check(name, value, lambda number: 0.0 <= number <= 1.0, "a number from 0 to 1")


def check_nonnegative_number(name: str, value: chex.Numeric) -> None:
    """Raises `ValueError` unless `value` is a finite number of at least zero; schedules are not accepted."""
    _refuse_schedule(name, value)
    check_nonnegative(name, value)


def check_positive_number(name: str, value: chex.Numeric) -> None:
    """Raises `ValueError` unless `value` is a finite number above zero; schedules are not accepted."""
    _refuse_schedule(name, value)
    _check(name, value, lambda number: number > 0.0, "a finite number above 0")


def check_fraction_number(name: str, value: chex.Numeric) -> None:
    """Raises `ValueError` unless `value` is a number from 0 to 1; schedules are not accepted."""
    _refuse_schedule(name, value)
    check_fraction(name, value)


def check_below_one(name: str, value: ScalarOrSchedule) -> None:
    """Raises `ValueError` unless `value` is a number of at least 0 and below 1, or a schedule that starts with one."""
    _check(name, value, lambda number: 0.0 <= number < 1.0, "a number of at least 0 and below 1")


def check_below_one_number(name: str, value: chex.Numeric) -> None:
    """Raises `ValueError` unless `value` is a number of at least zero and below 1; schedules are not accepted."""
    _refuse_schedule(name, value)
    check_below_one(name, value)


def check_count(name: str, value: Any, meaning: str) -> None:
    """Raises `ValueError` unless `value` is a positive integer; `meaning` describes in the message what it counts."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(
            f"{name} is {value!r}: give a positive integer, {meaning}. (Inside optax.inject_hyperparams name "
            f"{name} in its static_args.)"
        )


def check_position(name: str, value: Any) -> None:
    """Raises `ValueError` unless `value` is an integer, the position of an argument."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}: give an integer, a position counted after the parameters.")


def at(value: ScalarOrSchedule, count: Any) -> Any:
    """The value of a number or a schedule after `count` updates."""
    return value(count) if callable(value) else value


def sharpness_weight(gamma: chex.Numeric) -> Any:
    """WSAM's weight of the sharpness, `a = γ / (1 − γ)`; `ValueError` unless `0 ≤ γ < 1`."""
    check_below_one_number("gamma", gamma)
    return gamma / (1 - gamma)


def _check(name: str, value: ScalarOrSchedule, good: Callable[[float], bool], wanted: str) -> None:
    start = at(value, np.int32(0))
    what = f"{name}, a schedule, is {start!r} at its first step" if callable(value) else f"{name} is {start!r}"
    if isinstance(start, Tracer):
        return
    if not _is_number(start):
        raise ValueError(f"{what}: give a number, or an Optax schedule from the number of updates to one.")
    number = _as_float(start)
    if not math.isfinite(number) or not good(number):
        raise ValueError(f"{what}: give {wanted}.")
    if abs(number) > _LARGEST:
        raise ValueError(f"{what}, which is infinite in float32: give {wanted}, not above {_LARGEST:.1e}.")


def _as_float(value: Any) -> float:
    """`value` as a float; infinity for an integer that is too large for a float."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _refuse_schedule(name: str, value: Any) -> None:
    if callable(value):
        raise ValueError(f"{name} is {value!r}: give a number. It cannot follow a schedule.")


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, int | float):
        return True
    if not hasattr(value, "dtype") or jnp.shape(value) != ():
        return False
    return jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)
