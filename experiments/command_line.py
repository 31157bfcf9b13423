"""How the programs talk to the person who called them."""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import tyro
from rich.console import Console

Result = TypeVar("Result")


def parse(arguments: type[Result], program: str) -> Result:
    """The command line of `program`, as a dataclass."""
    return sensibly(lambda: tyro.cli(arguments, prog=program))


def start(main: Callable[[], None]) -> None:
    """Call a program's `main`; Ctrl-C ends it with a word, and with the exit code that shells give it."""
    try:
        main()
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped.")
        sys.exit(130)


def sensibly(function: Callable[..., Result], *args: Any) -> Result:
    """`function(*args)`; where it raises a `ValueError`, its sentence alone, and exit code 2.

    Only what a person may get wrong is called through it. Elsewhere a `ValueError` is our mistake, and shows its
    traceback.
    """
    try:
        return function(*args)
    except ValueError as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", markup=False, highlight=False)
        sys.exit(2)
