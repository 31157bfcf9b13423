"""How the programs talk to the person who called them."""

import argparse
import gc
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import tyro
from rich.console import Console

from experiments.cli import compilation_cache, standard_streams
from experiments.training import preemption
from experiments.training.exceptions import INTERRUPTED, NotFiniteError, Terminated, UnusableError, printable

Result = TypeVar("Result")

_NO_BACKEND = "Unable to initialize backend"  # how JAX's error begins


def parse(arguments: type[Result], program: str, default: Result | None = None) -> Result:
    """The command line of `program`, as a dataclass; what it leaves out is as in `default`."""
    with standard_streams.needed():  # --help
        shown = tyro.MISSING_NONPROP if default is None else default
        return exit_on_value_error(lambda: tyro.cli(arguments, prog=program, default=shown))


def option(name: str, words: list[str]) -> str | None:
    """What the command line gives for one option, before the rest of it is read: that one sets the others' defaults."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument(f"--{name}")
    try:
        return getattr(parser.parse_known_args(words)[0], name)
    except argparse.ArgumentError:  # it is the last word: the parser of the whole line says so
        return None


def start(main: Callable[[], None]) -> None:
    """Call a program's `main`, and end the process with the exit code of how it ended.

    Ctrl-C, SIGTERM and the exceptions of `training.exceptions` end it with their sentence and their code, as does a
    device that JAX cannot use. Signals that arrive later change nothing.

    Raises:
      SystemExit: With that code, if `main` did not return.
    """
    try:
        _call(main)
    except (UnusableError, NotFiniteError, Terminated) as ending:
        _end(f"{'' if isinstance(ending, Terminated) else 'error: '}{ending}", ending.code)
    except KeyboardInterrupt:
        _end("stopped.", INTERRUPTED)
    except standard_streams.OutputLost as lost:
        _end(lost.words and f"error: {lost.words}", lost.code)
    except RuntimeError as error:
        if not str(error).startswith(_NO_BACKEND):
            raise
        reason = str(error).partition("\n")[0]
        _end(f"error: JAX_PLATFORMS is {os.environ.get('JAX_PLATFORMS', '')!r}: {reason}", UnusableError.code)


def _call(main: Callable[[], None]) -> None:
    """Call `main`, with what it compiles kept on the disk, and signals as exceptions.

    The garbage collector skips what was imported before: it takes a third of a second, several times in a run.
    """
    preemption.raise_in_main()
    try:
        if reason := compilation_cache.switch_on():
            _say(reason)
        gc.freeze()
        main()
    finally:
        preemption.ignore()
        gc.unfreeze()


def _end(words: str, code: int) -> NoReturn:
    preemption.ignore()
    if words:
        _say(words)
    sys.exit(code)


def _say(words: str) -> None:
    Console(stderr=True, soft_wrap=True).print(printable(words), markup=False, highlight=False)


def exit_on_value_error(function: Callable[..., Result], *args: Any) -> Result:
    """`function(*args)`; where it raises a `ValueError`, its sentence alone, and exit code 2.

    Only what a person may get wrong is called through it. Elsewhere a `ValueError` is our mistake, and shows its
    traceback.
    """
    try:
        return function(*args)
    except ValueError as error:
        _say(f"error: {error}")
        sys.exit(2)
