"""Batches are sent ahead: in order, all of them, and no more at a time than asked for."""

from collections.abc import Iterator

import pytest

from experiments.training import transfer


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_every_batch_arrives_once_and_in_order(depth: int) -> None:
    assert list(transfer.ahead(range(7), lambda batch: 10 * batch, depth)) == [0, 10, 20, 30, 40, 50, 60]
    assert list(transfer.ahead([], lambda batch: batch, depth)) == []


def test_two_more_are_under_way_than_were_handed_out() -> None:
    log: list[tuple[str, int]] = []

    def read() -> Iterator[int]:
        for batch in range(5):
            log.append(("read", batch))
            yield batch

    def send(batch: int) -> int:
        log.append(("sent", batch))
        return batch

    log.extend(("used", batch) for batch in transfer.ahead(read(), send))
    assert log[:6] == [(what, batch) for batch in range(3) for what in ("read", "sent")]
    assert log[6:9] == [("used", 0), ("read", 3), ("sent", 3)]
    for batch in range(5):
        sent_by_then = {sent for what, sent in log[: log.index(("used", batch))] if what == "sent"}
        assert sent_by_then == set(range(min(batch + 3, 5)))


def test_a_depth_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="depth is 0: give an integer of at least 1"):
        next(transfer.ahead([1], lambda batch: batch, depth=0))
