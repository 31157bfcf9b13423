"""Prefetching: batches are sent to the device in advance, and steps are compiled in advance for later batch sizes.

A few batches are transferred while an earlier step computes. The batch plan may change between two batches.
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
"""`open(plan, step)` → the batches of a plan after its first `step` updates."""

Track = Callable[[Iterable[Any]], Iterable[Any]]
"""Iterates over the batches and shows the progress."""


class PlannedBatches(Iterator[Any]):
    """An iterator over the batches of a whole run; `follow` switches it to another batch plan."""

    def __init__(self, opened: Open, plan: BatchPlan, step: int) -> None:
        self._open, self._batches = opened, opened(plan, step)

    def __next__(self) -> Any:
        """Returns the next batch."""
        return next(self._batches)

    def follow(self, plan: BatchPlan, step: int) -> None:
        """Continues with the batches of `plan` from `step` on, and discards the batches that were read ahead."""
        self.close()
        self._batches = self._open(plan, step)

    def close(self) -> None:
        """Closes the iterator over the batches, and with it the thread that reads ahead."""
        self._batches.close()


@contextmanager
def shown(feed: PlannedBatches, track: Track) -> Iterator[Iterator[Any]]:
    """Yields the batches through `track`. Both are closed with the block, so that the progress thread ends, too."""
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
    """Returns a function for another thread, which does not inherit the setting `jax_enable_x64`."""
    wide = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]  # an option that JAX adds at import
    return jax.enable_x64(wide)(function)


def in_background(batches: Iterable[Read], send: Callable[[Read], Sent], depth: int = 2) -> Generator[Sent]:
    """Yields the batches in order, read and sent by a separate thread.

    On an accelerator a step consists of about a thousand kernels, and the main thread is busy launching them.

    Args:
      batches: the batches to send.
      send: puts a batch on the device.
      depth: the largest number of batches that are sent ahead, in addition to the one that was yielded last.

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
    """Yields the batches in order, each sent while earlier ones are processed.

    It starts no thread: for a step that divides its batch into micro-batches, a thread costs more than it saves.

    Args:
      batches: the batches to send.
      send: puts a batch on the device without waiting for it, as `jax.device_put` does.
      depth: the largest number of batches that are sent ahead, in addition to the one that was yielded last.

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
    """A jitted step that can be compiled in advance for a later batch size.

    Calling it makes the step. If the step for that batch size is still being compiled, the call waits, and raises the
    error of the compilation if there was one.

    Attributes:
      compiled: the jitted step, as `step.train_step` returns it.
      constants: the argument `constants` of the step.
      decisions: maps a batch size to the values of `perturb` that steps of this size use.
    """

    def __init__(self, compiled: Any, constants: Any, decisions: Callable[[int], Iterable[Decision]]) -> None:
        self.compiled, self.constants, self.decisions = compiled, constants, decisions
        self._like: tuple[Any, ...] | None = None
        self._under_way: dict[int, Future[None]] = {}
        self._thread = ThreadPoolExecutor(1, "compile")

    def __call__(
        self, state: TrainState, batch: Any, hyperparameters: Any, halted: Any = None, *, perturb: Decision = None
    ) -> tuple[TrainState, Metrics]:
        """Makes the step."""
        arguments = (state, batch, hyperparameters, self.constants, halted)
        if self._like is None:
            self._like = jax.tree.map(_shape_of, arguments)
        if self._under_way and (compiling := self._under_way.pop(len(jax.tree.leaves(batch)[0]), None)):
            compiling.result()
        return self.compiled(*arguments, perturb=perturb)

    def compile_ahead(self, batch_size: int) -> None:
        """Starts to compile the step for this batch size. The other shapes are those of the first step.

        Raises:
          ValueError: If the first step was not made yet.
        """
        if self._like is None:
            raise ValueError(
                f"compile_ahead({batch_size}) is called before the first step: its shapes are needed, run one."
            )
        if batch_size not in self._under_way:
            compiling = with_own_precision(functools.partial(self._compile, self._like, batch_size))
            self._under_way[batch_size] = self._thread.submit(compiling)

    def close(self) -> None:
        """Ends the thread after the compilation in progress."""
        self._thread.shutdown(cancel_futures=True)

    def _compile(self, like: tuple[Any, ...], batch_size: int) -> None:
        state, batch, *others = like
        resized = jax.tree.map(lambda x: x.update(shape=(batch_size, *x.shape[1:])), batch)
        for perturb in self.decisions(batch_size):
            # this fills the cache of the jitted function, so that the step need not compile
            self.compiled.lower(state, resized, *others, perturb=perturb).compile()


def _shape_of(x: Any) -> jax.ShapeDtypeStruct:
    """Returns what `jax.jit` compiles for: shape, dtype, weak type, and the sharding of a committed array."""
    kind = jax.typeof(x)
    sharding = x.sharding if getattr(x, "committed", False) else None
    return jax.ShapeDtypeStruct(kind.shape, kind.dtype, sharding=sharding, weak_type=kind.weak_type)
