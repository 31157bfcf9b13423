"""Command-line parsing, error messages and exit codes of the programs."""

import argparse
import gc
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import tyro
from rich.console import Console

from experiments.cli import allocator, compilation_cache, standard_streams
from experiments.cli.command import Command
from experiments.training import preemption
from experiments.training.exceptions import INTERRUPTED, NotFiniteError, Terminated, UnusableError, printable

Result = TypeVar("Result")

_COMPLETION = ("--tyro-print-completion", "--tyro-write-completion")
_NO_BACKEND = "Unable to initialize backend"  # how JAX's error begins


def parse(command: Command[Result], default: Result | None = None) -> Result:
    """Parses the command line of a command; options that are not given are those of `default`.

    Raises:
      SystemExit: After `--help`, after tyro's script for a shell's completion, and with code 2 after an error.
    """
    words, shown = sys.argv[1:], tyro.MISSING_NONPROP if default is None else default
    with standard_streams.needed():
        if {"-h", "--help"} & set(words):
            print(command.help(default), end="")
            sys.exit(0)
        name = command.word if words and words[0].startswith(_COMPLETION) else command.call
        return exit_on_value_error(lambda: tyro.cli(command.arguments, prog=name, default=shown))


def option(name: str, words: list[str]) -> str | None:
    """Returns the value of one option without parsing the others, whose defaults it determines."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument(f"--{name}")
    try:
        return getattr(parser.parse_known_args(words)[0], name)
    except argparse.ArgumentError:  # the option has no value: the parser of the whole command line reports it
        return None


def start(main: Callable[[], None]) -> None:
    """Calls a program's `main`, and turns expected exceptions into an error message and an exit code.

    These are Ctrl-C, SIGTERM, the exceptions of `training.exceptions`, and a device that JAX cannot use. Signals that
    arrive later are ignored.

    Raises:
      SystemExit: With the exit code, if `main` raised one of them.
    """
    try:
        _call(main)
    except (UnusableError, NotFiniteError, Terminated) as error:
        _end(f"{'' if isinstance(error, Terminated) else 'error: '}{error}", error.code)
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
    """Calls `main` with the compilation cache enabled, freed memory kept, and signals raised as exceptions.

    The garbage collector skips all objects of the imported modules. Traversing them takes a third of a second, several
    times in a run.
    """
    preemption.raise_in_main()
    try:
        if reason := compilation_cache.switch_on():
            _say(reason)
        allocator.keep_freed_memory()
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
    """Returns `function(*args)`; at a `ValueError`, prints its message without traceback and exits with code 2.

    Use it only for calls that depend on user input. Elsewhere a `ValueError` is a bug, and its traceback is shown.
    """
    try:
        return function(*args)
    except ValueError as error:
        _say(f"error: {error}")
        sys.exit(2)
