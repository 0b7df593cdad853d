"""Bytes from one thread to another."""

import threading
import time

import pytest

from rdservice.rdstation.pipe import PIECES, Pipe
from tests.support.waiting import wait_until

PATIENCE_S = 20.0


def later() -> float:
    return time.monotonic() + PATIENCE_S


def test_pieces_come_out_in_their_order_and_then_the_end() -> None:
    pipe = Pipe()
    assert pipe.put(b"a", later())
    assert pipe.put(b"b", later())
    pipe.end()
    assert [pipe.take(later()), pipe.take(later()), pipe.take(later())] == [b"a", b"b", None]


def test_an_error_comes_after_the_pieces_before_it() -> None:
    pipe = Pipe()
    pipe.put(b"a", later())
    pipe.end(ValueError("broken"))
    pipe.end()
    assert pipe.take(later()) == b"a"
    with pytest.raises(ValueError, match="broken"):
        pipe.take(later())


def test_who_writes_faster_than_the_other_reads_has_to_wait() -> None:
    pipe = Pipe()
    written: list[int] = []

    def write() -> None:
        for number in range(3 * PIECES):
            assert pipe.put(b"%d" % number, later())
            written.append(number)
        pipe.end()

    writer = threading.Thread(target=write)
    writer.start()
    wait_until(lambda: len(written) == PIECES, "the pipe is full")
    read = 0
    while pipe.take(later()) is not None:
        read += 1
        assert len(written) <= read + PIECES + 1
    writer.join(PATIENCE_S)
    assert read == 3 * PIECES


def test_a_writer_ends_when_nobody_reads_any_more() -> None:
    pipe = Pipe()
    for _ in range(PIECES):
        pipe.put(b"x", later())
    results: list[bool] = []
    writer = threading.Thread(target=lambda: results.append(pipe.put(b"y", later())))
    writer.start()
    pipe.abandon()
    writer.join(PATIENCE_S)
    assert results == [False]
    assert not pipe.put(b"z", later())


def test_both_sides_give_up_in_time() -> None:
    pipe = Pipe()
    with pytest.raises(TimeoutError):
        pipe.take(time.monotonic())
    for _ in range(PIECES):
        pipe.put(b"x", later())
    assert not pipe.put(b"y", time.monotonic())
