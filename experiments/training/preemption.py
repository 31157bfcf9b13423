"""Signals: SIGTERM and Ctrl-C, from before the imports until the process has ended.

A program goes through three stages. While it imports, nothing is open, and a signal ends the process (`end_at_once`).
While it works, a signal raises an exception in the main thread (`raise_in_main`), except where a run asks between two
steps whether it is to stop (`on_sigterm`): schedulers send SIGTERM before they take the machine away. From the moment
the exit code is decided, signals do nothing (`ignore`): Python restores the default of its own handlers while it shuts
down, and a second SIGTERM would then kill the process and replace its exit code.
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
    """From now on, a signal ends the process with its exit code."""
    _listen(_end)


def raise_in_main() -> None:
    """From now on, a signal raises `Terminated` or `KeyboardInterrupt` in the main thread."""
    _listen(_raise)


def ignore() -> None:
    """From now on, signals do nothing; the system keeps this setting until the process has ended."""
    for number in _CODES:
        signal.signal(number, signal.SIG_IGN)


def _listen(handler: Callable[[int, FrameType | None], None]) -> None:
    signal.signal(signal.SIGTERM, handler)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a shell has background jobs ignore Ctrl-C
        signal.signal(signal.SIGINT, handler)


def _end(number: int, _: FrameType | None) -> None:
    ignore()
    try:
        os.write(2, b"stopped.\n")
    finally:
        os._exit(_CODES[signal.Signals(number)])


def _raise(number: int, _: FrameType | None) -> None:
    """Raise the exception of a signal, unless that of an earlier one is being handled.

    What is open is closed meanwhile, which a second exception would cut short. An exception that was lost, as those in
    `__del__` are, is being handled nowhere: then the next signal counts again.
    """
    error = sys.exception()
    while error is not None:  # the one that the main thread handles, and those in whose handling it was raised
        if isinstance(error, Terminated | KeyboardInterrupt):
            return
        error = error.__context__
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated("stopped.")


Stop = Callable[[int], bool]
"""From the number of updates made to whether the run is to stop there; all processes get the same answer."""


def never(_: int) -> bool:
    """Nothing asks the run to stop."""
    return False


@contextmanager
def on_sigterm() -> Iterator[Stop]:
    """Have SIGTERM ask a run to stop between two steps, instead of raising an exception.

    Once it has asked, further signals do nothing, until the process has ended. Of several processes JAX listens, and
    makes them agree on a step; there nothing is installed here.

    Yields:
      Whether to stop, asked before each step.
    """
    import jax  # noqa: PLC0415 - this module is imported before anything that takes time
    from jax.experimental import multihost_utils  # noqa: PLC0415 - as above

    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    heard: list[int] = []

    def hear(number: int, _: FrameType | None) -> None:
        ignore()
        heard.append(number)

    before = signal.signal(signal.SIGTERM, hear)
    try:
        yield lambda step: bool(heard)
    finally:
        if not heard:
            signal.signal(signal.SIGTERM, before)
