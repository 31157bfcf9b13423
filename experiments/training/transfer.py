"""The way of batches to the device: a few are under way while the step before them computes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Read = TypeVar("Read")
Sent = TypeVar("Sent")


def ahead(batches: Iterable[Read], send: Callable[[Read], Sent], depth: int = 2) -> Iterator[Sent]:
    """The batches as `send` leaves them, in order, each sent while those before it are worked on.

    Args:
      batches: what is sent.
      send: puts one on the device without waiting for it, as `jax.device_put` does.
      depth: how many batches are under way at most, beside the one that was handed out last.

    Yields:
      What `send` returns.

    Raises:
      ValueError: If `depth` is not positive.
    """
    if depth < 1:
        raise ValueError(f"depth is {depth}: give an integer of at least 1.")
    under_way: deque[Sent] = deque()
    for batch in batches:
        under_way.append(send(batch))
        if len(under_way) > depth:
            yield under_way.popleft()
    yield from under_way
