"""Batches are prefetched completely and in order, and never more at a time than requested."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from experiments.training import prefetch

every_way = pytest.mark.parametrize("sent", [prefetch.ahead, prefetch.in_background])


@every_way
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_every_batch_arrives_once_and_in_order(depth: int, sent: Callable[..., Iterator[Any]]) -> None:
    assert list(sent(range(7), lambda batch: 10 * batch, depth)) == [0, 10, 20, 30, 40, 50, 60]
    assert list(sent([], lambda batch: batch, depth)) == []


def test_two_batches_are_prefetched() -> None:
    log: list[tuple[str, int]] = []

    def read() -> Iterator[int]:
        for batch in range(5):
            log.append(("read", batch))
            yield batch

    def send(batch: int) -> int:
        log.append(("sent", batch))
        return batch

    log.extend(("used", batch) for batch in prefetch.ahead(read(), send))
    assert log[:6] == [(what, batch) for batch in range(3) for what in ("read", "sent")]
    assert log[6:9] == [("used", 0), ("read", 3), ("sent", 3)]
    for batch in range(5):
        sent_by_then = {sent for what, sent in log[: log.index(("used", batch))] if what == "sent"}
        assert sent_by_then == set(range(min(batch + 3, 5)))


def test_the_background_thread_reads_no_further_ahead() -> None:
    read: list[int] = []
    enough = threading.Semaphore(0)

    def send(batch: int) -> int:
        read.append(batch)
        enough.release()
        return batch

    batches = prefetch.in_background(range(9), send)
    for handed_out in range(3):
        assert next(batches) == handed_out
        for _ in range(3 if handed_out == 0 else 1):
            assert enough.acquire(timeout=10)
        assert read == list(range(handed_out + 3))  # the thread is idle until the next batch is requested


def test_the_thread_ends_after_the_last_batch_or_when_the_reader_stops(
    started: Callable[[], list[str]],
) -> None:
    batches = prefetch.in_background(range(9), lambda batch: batch)
    next(batches)
    assert len(started()) == 1
    batches.close()
    assert list(prefetch.in_background(range(3), lambda batch: batch)) == [0, 1, 2]
    assert started() == []


def test_errors_of_the_background_thread_are_raised_at_the_batch() -> None:
    batches = prefetch.in_background([1, 0], lambda batch: 1 / batch)
    assert next(batches) == 1.0
    with pytest.raises(ZeroDivisionError):
        next(batches)


def test_the_background_thread_uses_64_bits_where_its_user_does(x64: None) -> None:
    [batch] = prefetch.in_background([1.0], jnp.asarray)
    assert batch.dtype == jnp.float64
    with jax.enable_x64(False):
        [batch] = prefetch.in_background([1.0], jnp.asarray)
    assert batch.dtype == jnp.float32


@every_way
def test_a_depth_of_zero_is_refused(sent: Callable[..., Iterator[Any]]) -> None:
    with pytest.raises(ValueError, match="depth is 0: give an integer of at least 1"):
        next(sent([1], lambda batch: batch, depth=0))
