"""Work ahead of a run: batches that are sent to the device, and steps that are compiled for later batch sizes.

The plan may change between two batches. A few batches are transferred while the step before them computes.
"""

import functools
import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import jax

from experiments.training.loss_and_update import Decision
from experiments.training.step import Metrics, TrainState
from sam_optax import BatchPlan

Open = Callable[[BatchPlan, int], Generator[Any]]
"""`open(plan, step)` → the batches of a plan, without those of the first `step` updates."""

Track = Callable[[Iterable[Any]], Iterable[Any]]
"""Hands batches on, and shows how far it is."""


class PlannedBatches(Iterator[Any]):
    """One iterator for the whole run; `follow` lets it go on with the batches of another plan."""

    def __init__(self, opened: Open, plan: BatchPlan, step: int) -> None:
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


def with_own_precision(function: Callable[[], Sent]) -> Callable[[], Sent]:
    """A function for another thread, which does not inherit whether numbers of 64 bits are enabled."""
    wide = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]  # an option that JAX adds at import
    return jax.enable_x64(wide)(function)


def in_background(batches: Iterable[Read], send: Callable[[Read], Sent], depth: int = 2) -> Generator[Sent]:
    """The batches as `send` leaves them, in order, read and sent by a thread of its own.

    On an accelerator a step is a thousand kernels, and the thread that makes the steps is busy with starting them.

    Args:
      batches: what is sent.
      send: puts one on the device.
      depth: how many batches are under way at most, in addition to the one that was handed out last.

    Yields:
      What `send` returns.

    Raises:
      ValueError: If `depth` is not positive.
    """
    sent = map(send, batches)
    following = with_own_precision(lambda: next(sent, _NO_MORE))
    thread = ThreadPoolExecutor(1, "batches")
    try:
        for batch in ahead(itertools.repeat(following), thread.submit, depth):
            if (found := batch.result()) is _NO_MORE:
                return
            yield cast("Sent", found)
    finally:
        thread.shutdown(cancel_futures=True)


def ahead(batches: Iterable[Read], send: Callable[[Read], Sent], depth: int = 2) -> Iterator[Sent]:
    """The batches as `send` leaves them, in order, each sent while those before it are worked on.

    It starts no thread, which would cost more than it saves if a step divides its batch into parts.

    Args:
      batches: what is sent.
      send: puts one on the device without waiting for it, as `jax.device_put` does.
      depth: how many batches are under way at most, in addition to the one that was handed out last.

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


class PrecompiledStep:
    """A compiled step that can be compiled, before it is made, for a batch size that comes later.

    Calling it makes the step; one for which it is still compiling waits for that, and raises what went wrong there.

    Attributes:
      compiled: the step, a jitted function, as `step.train_step` makes it.
      constants: what it reads in addition to the batch.
      decisions: from a batch size to the values of `perturb` that steps of this size are made with.
    """

    def __init__(self, compiled: Any, constants: Any, decisions: Callable[[int], Iterable[Decision]]) -> None:
        self.compiled, self.constants, self.decisions = compiled, constants, decisions
        self._like: tuple[Any, ...] | None = None
        self._under_way: dict[int, Future[None]] = {}
        self._thread = ThreadPoolExecutor(1, "compile")

    def __call__(
        self, state: TrainState, batch: Any, hyperparameters: Any, halted: Any = None, *, perturb: Decision = None
    ) -> tuple[TrainState, Metrics]:
        """Make the step."""
        arguments = (state, batch, hyperparameters, self.constants, halted)
        if self._like is None:
            self._like = jax.tree.map(_shape_of, arguments)
        if self._under_way and (compiling := self._under_way.pop(len(jax.tree.leaves(batch)[0]), None)):
            compiling.result()
        return self.compiled(*arguments, perturb=perturb)

    def prepare(self, batch_size: int) -> None:
        """Start compiling for batches of this size, shaped otherwise as those of the first step, which must be made."""
        if self._like is None:
            raise ValueError(f"prepare({batch_size}) is called before the first step: make one, whose shapes it needs.")
        if batch_size not in self._under_way:
            compile_ahead = with_own_precision(functools.partial(self._compile, self._like, batch_size))
            self._under_way[batch_size] = self._thread.submit(compile_ahead)

    def close(self) -> None:
        """End the thread, when it is through with what it compiles."""
        self._thread.shutdown(cancel_futures=True)

    def _compile(self, like: tuple[Any, ...], batch_size: int) -> None:
        state, batch, *others = like
        resized = jax.tree.map(lambda x: x.update(shape=(batch_size, *x.shape[1:])), batch)
        for perturb in self.decisions(batch_size):
            # this fills the cache of the ordinary function: the step finds it there
            self.compiled.lower(state, resized, *others, perturb=perturb).compile()


def _shape_of(x: Any) -> jax.ShapeDtypeStruct:
    """What a compiled function is chosen by: shape, type, and where an array lies, if that was said."""
    kind = jax.typeof(x)
    sharding = x.sharding if getattr(x, "committed", False) else None
    return jax.ShapeDtypeStruct(kind.shape, kind.dtype, sharding=sharding, weak_type=kind.weak_type)
