"""Checks of settings. Each raises a ValueError that names the setting, its value and a remedy."""

import importlib.util
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from sam_optax import BatchPlan

_LARGEST = float(np.finfo(np.float32).max)
_LARGEST_COUNT = 2**31 - 1
MOST_RUNS = 10_000
"""The most runs of a study: planning them takes ten seconds."""


def check_choice(name: str, value: str | None, known: Iterable[str]) -> None:
    """Refuses a value of the argument `name` that is not `known`; None is no value."""
    if value is not None and value not in known:
        raise ValueError(f"{name} is {value!r}: choose one of {', '.join(known)}.")


def check_conflicts(given: str, conflicts: Mapping[str, bool]) -> None:
    """Refuses a setting for the first of the reasons that hold; a reason ends with the remedy."""
    for reason, holds in conflicts.items():
        if holds:
            raise ValueError(given + reason)


def check_number(name: str, value: float | None) -> None:
    """Refuses a value of the argument `name` that is negative, or larger than float32 can hold; None is no value."""
    if value is not None and not 0 <= value <= _LARGEST:
        raise ValueError(f"{name} is {value}: give a finite number of at least 0.")


def check_fraction(name: str, value: float) -> None:
    """Refuses a value of the argument `name` that is negative, or 1 and more."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} is {value}: give a number of at least 0 and below 1.")


def check_count(name: str, value: int | None, most: int = _LARGEST_COUNT) -> None:
    """Refuses a value of the argument `name` that is not positive, or larger than `most`; None is no value."""
    if value is None:
        return
    if value < 1:
        raise ValueError(f"{name} is {value}: give an integer of at least 1.")
    if value > most:
        raise ValueError(f"{name} is {value}: give an integer of at most {most}.")


def check_package(given: str, package: str) -> None:
    """Refuses a setting whose package is not installed; `given` names the setting and its value."""
    if importlib.util.find_spec(package) is None:
        raise ValueError(f"{given}, which needs the package {package}: install sam_optax[experiments], or omit it.")


def check_plan(name: str, text: str) -> None:
    """Refuses a text of the argument `name` that is no batch plan in whole epochs, which a study needs."""
    try:
        plan = BatchPlan.parse(text)
        if plan.unit != "epochs" or not all(isinstance(stage.length, int) for stage in plan.stages):
            raise ValueError("a study compares runs of whole epochs: give a plan such as 2x16,2x32.")
    except ValueError as error:
        raise ValueError(f"{name} is {text!r}: {error}") from error


def check_seeds(seeds: tuple[int, ...], name: str = "seeds") -> None:
    """Refuses seeds of a study that are empty, have duplicates or exceed the number of runs of a study."""
    check_runs(name, seeds, 1)
    check_distinct(name, seeds)


def check_distinct(name: str, values: Sequence[object]) -> None:
    """Refuses values of the argument `name` that are empty or have duplicates."""
    if not values or len(set(values)) < len(values):
        raise ValueError(f"{name} is {values}: give at least one value, and each value once.")


def check_runs(name: str, values: Sequence[object], runs_of_each: int) -> None:
    """Refuses so many values of the argument `name` that a study has more runs than can be planned."""
    if len(values) * runs_of_each > MOST_RUNS:
        raise ValueError(
            f"{name} has {len(values)} values, which makes {len(values) * runs_of_each} runs: give fewer, a study has "
            f"at most {MOST_RUNS} runs."
        )
