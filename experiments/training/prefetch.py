"""The batches of a run on their way to the device.

The plan may change between two batches. A few batches are transferred while the step before them computes.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import jax

from sam_optax import BatchPlan

Open = Callable[[BatchPlan, int], Generator[Any]]
"""`open(plan, step)` → the batches of a plan, without those of the first `step` updates."""

Track = Callable[[Iterable[Any]], Iterable[Any]]
"""Hands batches on, and shows how far it is."""


class PlannedBatches(Iterator[Any]):
    """One iterator for the whole run; `follow` lets it go on with the batches of another plan."""

    def __init__(self, opened: Open, plan: BatchPlan, step: int) -> None:
        """The batches of `plan` from `step` on."""
        self._open, self._batches = opened, opened(plan, step)

    def __next__(self) -> Any:
        """The next batch."""
        return next(self._batches)

    def follow(self, plan: BatchPlan, step: int) -> None:
        """Go on with the batches of `plan` from `step` on; what was read ahead is forgotten."""
        self.close()
        self._batches = self._open(plan, step)

    def close(self) -> None:
        """End what reads ahead."""
        self._batches.close()


@contextmanager
def shown(feed: PlannedBatches, track: Track) -> Iterator[Iterator[Any]]:
    """The batches as `track` hands them on; both end with the block, or the thread that shows progress lives on."""
    watched = iter(track(feed))
    try:
        yield watched
    finally:
        if isinstance(watched, Generator):
            watched.close()
        feed.close()


Read = TypeVar("Read")
Sent = TypeVar("Sent")

_NO_MORE = object()


def in_background(batches: Iterable[Read], send: Callable[[Read], Sent], depth: int = 2) -> Generator[Sent]:
    """The batches as `send` leaves them, in order, read and sent by a thread of its own.

    On an accelerator a step is a thousand kernels, and starting them is the work of the thread that makes the steps.

    Args:
      batches: what is sent.
      send: puts one on the device.
      depth: how many batches are under way at most, beside the one that was handed out last.

    Yields:
      What `send` returns.

    Raises:
      ValueError: If `depth` is not positive.
    """
    _check(depth)
    source, wide = iter(batches), jax.config.jax_enable_x64  # which a thread does not inherit

    def following() -> Sent | object:
        with jax.enable_x64(wide):
            return next(map(send, source), _NO_MORE)

    thread = ThreadPoolExecutor(1, "batches")
    try:
        under_way = deque(thread.submit(following) for _ in range(depth))
        while (batch := under_way.popleft().result()) is not _NO_MORE:
            under_way.append(thread.submit(following))
            yield batch  # pyright: ignore[reportReturnType]
    finally:
        thread.shutdown(cancel_futures=True)


def ahead(batches: Iterable[Read], send: Callable[[Read], Sent], depth: int = 2) -> Iterator[Sent]:
    """The batches as `send` leaves them, in order, each sent while those before it are worked on.

    Without a thread, which would cost more than it saves where a step cuts its batch into parts.

    Args:
      batches: what is sent.
      send: puts one on the device without waiting for it, as `jax.device_put` does.
      depth: how many batches are under way at most, beside the one that was handed out last.

    Yields:
      What `send` returns.

    Raises:
      ValueError: If `depth` is not positive.
    """
    _check(depth)
    under_way: deque[Sent] = deque()
    for batch in batches:
        under_way.append(send(batch))
        if len(under_way) > depth:
            yield under_way.popleft()
    yield from under_way


def _check(depth: int) -> None:
    if depth < 1:
        raise ValueError(f"depth is {depth}: give an integer of at least 1.")
