"""The stages of plans whose batch size grows by a formula."""

import math
from collections.abc import Callable
from numbers import Integral, Real

from sam_optax.batch_plan.stages import Stage, check_positive_integer


def exponential_stages(
    initial: int, factor: float, every: int, epochs: int, maximum: int | None = None
) -> tuple[Stage, ...]:
    """The stages whose sizes are `min(round(initial · factorᵏ), maximum)`; see `BatchPlan.exponential`."""
    if not isinstance(factor, Real) or not math.isfinite(factor) or factor < 1:
        raise ValueError(f"factor is {factor!r}: give a number of at least 1, so that the batch does not shrink.")
    exact = int(factor) if isinstance(factor, Integral) else float(factor)
    return _growing(lambda k: int(initial) * exact**k, initial, every, epochs, maximum)


def polynomial_stages(
    initial: int, power: float, every: int, epochs: int, maximum: int | None = None
) -> tuple[Stage, ...]:
    """The stages whose sizes are `min(round(initial · (1 + k)^power), maximum)`; see `BatchPlan.polynomial`."""
    if not isinstance(power, Real) or not math.isfinite(power) or power < 0:
        raise ValueError(f"power is {power!r}: give a number of at least 0, so that the batch does not shrink.")
    return _growing(lambda k: int(initial) * (1 + k) ** power, initial, every, epochs, maximum)


def _growing(
    size: Callable[[int], float], initial: int, every: int, epochs: int, maximum: int | None
) -> tuple[Stage, ...]:
    for name, value in {"initial": initial, "every": every, "epochs": epochs}.items():
        check_positive_integer(name, value)
    if maximum is not None:
        check_positive_integer("maximum", maximum)
        if maximum < initial:
            raise ValueError(f"maximum is {maximum}, below initial, {initial}: give at least {initial}.")
    ceiling = math.inf if maximum is None else maximum
    lengths = [min(every, epochs - start) for start in range(0, epochs, every)]
    sizes = [min(_or_infinity(size, k), ceiling) for k in range(len(lengths))]
    if math.inf in sizes:
        raise ValueError(
            f"maximum is None, and the batch size overflows a float within {epochs} epochs: give a maximum."
        )
    return tuple(Stage(n, round(size)) for n, size in zip(lengths, sizes, strict=True))


def _or_infinity(size: Callable[[int], float], k: int) -> float:
    """`size(k)`, or infinity if that is too large for a float."""
    try:
        return size(k)
    except OverflowError:
        return math.inf
