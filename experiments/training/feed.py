"""The batches of a run whose plan may change between two of them."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from sam_optax import BatchPlan

Open = Callable[[BatchPlan, int], Generator[Any]]
"""`open(plan, step)` → the batches of a plan, without those of the first `step` updates."""

Track = Callable[[Iterable[Any]], Iterable[Any]]
"""Hands batches on, and shows how far it is."""


class Feed(Iterator[Any]):
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
def shown(feed: Feed, track: Track) -> Iterator[Iterator[Any]]:
    """The batches as `track` hands them on; both end with the block, or the thread that shows progress lives on."""
    watched = iter(track(feed))
    try:
        yield watched
    finally:
        if isinstance(watched, Generator):
            watched.close()
        feed.close()
