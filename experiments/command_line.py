"""How the programs talk to the person who called them."""

import argparse
import gc
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import tyro
from rich.console import Console

from experiments import compilation_cache
from experiments.training.endings import NotFiniteError, Terminated, UnusableError
from experiments.training.printable import printable

Result = TypeVar("Result")


def parse(arguments: type[Result], program: str, default: Result | None = None) -> Result:
    """The command line of `program`, as a dataclass; what it leaves out is as in `default`."""
    given = {} if default is None else {"default": default}
    return sensibly(lambda: tyro.cli(arguments, prog=program, **given))


def option(name: str, words: list[str]) -> str | None:
    """What the command line gives for one option, before the rest of it is read: that one sets the others' defaults."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument(f"--{name}")
    try:
        return getattr(parser.parse_known_args(words)[0], name)
    except argparse.ArgumentError:  # it is the last word: the parser of the whole line says so
        return None


def start(main: Callable[[], None]) -> None:
    """Call a program's `main`, what it compiles being kept on the disk.

    What is imported by then is not looked through for garbage: it takes a third of a second, several times in a run.

    Ctrl-C ends it with a word, and with the exit code that shells give it; the endings of `training.endings` end it
    with their sentence and their code.
    """
    if reason := compilation_cache.switch_on():
        Console(stderr=True, soft_wrap=True).print(reason, markup=False, highlight=False)
    gc.freeze()
    try:
        main()
    except (UnusableError, NotFiniteError, Terminated) as ending:
        said = f"{'' if isinstance(ending, Terminated) else 'error: '}{ending}"
        Console(stderr=True, soft_wrap=True).print(printable(said), markup=False, highlight=False)
        sys.exit(ending.code)
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped.")
        sys.exit(130)
    finally:
        gc.unfreeze()


def sensibly(function: Callable[..., Result], *args: Any) -> Result:
    """`function(*args)`; where it raises a `ValueError`, its sentence alone, and exit code 2.

    Only what a person may get wrong is called through it. Elsewhere a `ValueError` is our mistake, and shows its
    traceback.
    """
    try:
        return function(*args)
    except ValueError as error:
        Console(stderr=True, soft_wrap=True).print(printable(f"error: {error}"), markup=False, highlight=False)
        sys.exit(2)
