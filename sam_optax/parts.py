"""What the pieces that are put together must have."""

from typing import Any


def check(name: str, part: Any, functions: tuple[str, ...], kind: str) -> None:
    """Raise `ValueError` unless `part` has the functions of its kind."""
    if not all(callable(getattr(part, function, None)) for function in functions):
        raise ValueError(f"{name} is {part!r}: give {kind}, with {', '.join(functions)}.")


def check_transformation(name: str, tx: Any) -> None:
    """Raise `ValueError` unless `tx` is an Optax transformation."""
    check(name, tx, ("init", "update"), "an optax.GradientTransformation")
