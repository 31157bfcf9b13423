"""Stopping a run between two steps: at SIGTERM, which schedulers send before they take the machine away."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import jax
from jax.experimental import multihost_utils

from experiments.training import signals

Stop = Callable[[int], bool]
"""From the number of updates made to whether the run is to stop there; all processes get the same answer."""


def never(step: int) -> bool:
    """Nothing asks the run to stop."""
    del step
    return False


@contextmanager
def on_sigterm() -> Iterator[Stop]:
    """Have SIGTERM ask a run to stop between two steps, instead of raising an exception.

    Once it has asked, further signals do nothing, until the process has ended. Of several processes JAX listens, and
    makes them agree on a step; there nothing is installed here.

    Yields:
      Whether to stop, asked before each step.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    heard: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        del frame
        signals.ignore()
        heard.append(number)

    before = signal.signal(signal.SIGTERM, hear)
    try:
        yield lambda step: bool(heard)
    finally:
        if not heard:
            signal.signal(signal.SIGTERM, before)
