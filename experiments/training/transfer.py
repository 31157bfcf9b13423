"""The way of batches to the device: a few are under way while the step before them computes."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import jax

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
