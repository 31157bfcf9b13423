"""Compilation ahead: while one stage of a plan trains, the step compiles for the next batch size in the background."""

import functools
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax

from experiments.training.prefetch import with_own_precision
from experiments.training.step import Metrics, TrainState

Decisions = Callable[[int], Iterable[bool | None]]
"""`decisions(batch_size)` → the values of `perturb` that steps of this size are made with."""


class PrecompiledStep:
    """A compiled step that can be compiled, before it is made, for a batch size that comes later.

    Calling it makes the step; one for which it is still compiling waits for that, and raises what went wrong there.

    Attributes:
      compiled: the step, a jitted function, as `step.train_step` makes it.
      constants: what it reads in addition to the batch.
    """

    def __init__(self, compiled: Any, constants: Any, decisions: Decisions) -> None:
        self.compiled, self.constants, self._decisions = compiled, constants, decisions
        self._like: tuple[Any, ...] | None = None
        self._under_way: dict[int, Future[None]] = {}
        self._thread = ThreadPoolExecutor(1, "compile")

    def __call__(
        self, state: TrainState, batch: Any, hyperparameters: Any, halted: Any = None, *, perturb: bool | None = None
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
        for perturb in self._decisions(batch_size):
            # this fills the cache of the ordinary function: the step finds it there
            self.compiled.lower(state, resized, *others, perturb=perturb).compile()


def _shape_of(x: Any) -> jax.ShapeDtypeStruct:
    """What a compiled function is chosen by: shape, type, and where an array lies, if that was said."""
    kind = jax.typeof(x)
    sharding = x.sharding if getattr(x, "committed", False) else None
    return jax.ShapeDtypeStruct(kind.shape, kind.dtype, sharding=sharding, weak_type=kind.weak_type)
