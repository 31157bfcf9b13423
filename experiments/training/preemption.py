"""Signals: SIGTERM and Ctrl-C, from before the imports until the process has ended.

A program goes through three stages. While it imports, no file is open, and a signal ends the process (`end_at_once`).
While it works, a signal raises an exception in the main thread (`raise_in_main`). During training SIGTERM, which
schedulers send before they take the machine away, only sets a flag, which is checked between two steps (`on_sigterm`).
Once the exit code is decided, signals are ignored (`ignore`): Python restores the default handlers while it shuts down,
and a second SIGTERM would then kill the process and replace its exit code.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from experiments.training.exceptions import INTERRUPTED, Terminated

_CODES = {signal.SIGTERM: Terminated.code, signal.SIGINT: INTERRUPTED}


def end_at_once() -> None:
    """Makes a signal end the process with the signal's exit code, from now on."""
    _listen(_end)


def raise_in_main() -> None:
    """Makes a signal raise `Terminated` or `KeyboardInterrupt` in the main thread, from now on."""
    _listen(_raise)


def ignore() -> None:
    """Ignores signals from now on; the system keeps this setting until the process has ended."""
    for number in _CODES:
        signal.signal(number, signal.SIG_IGN)


def _listen(handler: Callable[[int, FrameType | None], None]) -> None:
    signal.signal(signal.SIGTERM, handler)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # shells start background jobs with Ctrl-C ignored
        signal.signal(signal.SIGINT, handler)


def _end(number: int, _: FrameType | None) -> None:
    ignore()
    try:
        os.write(2, b"stopped.\n")
    finally:
        os._exit(_CODES[signal.Signals(number)])


def _raise(number: int, _: FrameType | None) -> None:
    """Raises the exception of a signal, unless the exception of an earlier signal is being handled.

    While the earlier one is handled, files are closed, which a second exception would interrupt. An exception that was
    lost, for instance one raised in `__del__`, is not being handled; the next signal then raises again.
    """
    error = sys.exception()
    while error is not None:  # the exception being handled, and then those during whose handling it was raised
        if isinstance(error, Terminated | KeyboardInterrupt):
            return
        error = error.__context__
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated("stopped.")


Stop = Callable[[int], bool]
"""Maps the number of updates made to whether the run is to stop there; the answer is the same on all processes."""


def never(_: int) -> bool:
    """Never stops."""
    return False


@contextmanager
def on_sigterm() -> Iterator[Stop]:
    """Sets a flag at SIGTERM, by which a run stops between two steps; later signals are ignored.

    If a run has several processes, JAX handles the signal and makes them agree on a step; no handler is installed here.

    Yields:
      The function that returns whether to stop; the run calls it before each step.
    """
    import jax  # noqa: PLC0415 - this module is imported before all slow imports
    from jax.experimental import multihost_utils  # noqa: PLC0415 - as above

    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    received: list[int] = []

    def hear(number: int, _: FrameType | None) -> None:
        ignore()
        received.append(number)

    before = signal.signal(signal.SIGTERM, hear)
    try:
        yield lambda step: bool(received)
    finally:
        if not received:
            signal.signal(signal.SIGTERM, before)
