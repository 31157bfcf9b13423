"""A wish from outside that the program end: SIGTERM, as schedulers send it before they take the machine away."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
from jax.experimental import multihost_utils

Stop = Callable[[int], bool]
"""From the number of updates made to whether the run is to stop there; all processes get the same answer."""


def never(step: int) -> bool:
    """There is no such wish."""
    del step
    return False


@contextmanager
def on_sigterm() -> Iterator[Stop]:
    """Hear SIGTERM; a second one says nothing new.

    Of several processes JAX listens, and makes them agree on a step; there nothing is installed here.

    Yields:
      Whether to stop, asked before each step.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        yield lambda step: bool(heard)
    finally:
        signal.signal(signal.SIGTERM, before)
