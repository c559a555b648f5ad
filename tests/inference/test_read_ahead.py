"""Reading ahead: each item once, within bounds, without keeping results, raising errors and ending its threads."""

import random
import threading
import time
import weakref
from contextlib import closing

import pytest

from gan_nst.inference.folder import read_ahead


def settled(read, wanted):
    """Waits until a count reaches `wanted`, and a little longer to see whether it grows further."""
    deadline = time.monotonic() + 10
    while read() < wanted and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(0.1)
    return read()


def readers():
    return [t.name for t in threading.enumerate() if t.name.startswith("reader")]


class Thing:
    """Something whose garbage collection can be observed."""


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("limit", [1, 7, 10_000])
def test_every_item_is_read_once(threads, limit):
    pauses = random.Random(0)

    def work(item):
        time.sleep(pauses.random() / 1000)
        return item * item

    found = list(read_ahead(work, range(200), lambda result: 3, threads, limit))
    assert sorted(found) == [item * item for item in range(200)]
    assert found == sorted(found) or threads > 1
    assert readers() == []


def test_no_item_is_read_while_the_limit_waits():
    begun = []
    with closing(
        read_ahead(lambda i: begun.append(i), range(100), lambda _: 4, threads=1, limit=10)
    ) as results:
        assert begun == []
        next(results)
        assert settled(lambda: len(begun), 4) == 4  # one was taken, and 4 + 4 + 4 >= 10 are waiting
        next(results)
        assert settled(lambda: len(begun), 5) == 5
    assert readers() == []


def test_the_number_of_waiting_results_is_bounded_too():
    begun = []
    with closing(read_ahead(begun.append, range(1000), lambda _: 0, threads=2, limit=10)) as results:
        next(results)
        assert 64 <= settled(lambda: len(begun), 65) <= 66


def test_a_result_that_was_taken_is_not_kept():
    """While an item is read, the previous one, which the caller dropped, is freed."""
    alive, kept = [], []

    def work(item):
        deadline = time.monotonic() + 2
        while alive and alive[-1]() is not None and time.monotonic() < deadline:
            time.sleep(0.002)
        kept.extend(item for ref in alive if ref() is not None)
        thing = Thing()
        alive.append(weakref.ref(thing))
        return thing

    for thing in read_ahead(work, range(5), lambda _: 1, threads=1, limit=1):
        del thing
    assert len(alive) == 5
    assert kept == []


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
def test_an_exception_while_reading_is_raised_here(error):
    def work(item):
        if item == 5:
            raise error
        return item

    with pytest.raises(type(error)):
        list(read_ahead(work, range(100), lambda _: 1, threads=2, limit=3))
    assert readers() == []


def test_an_exception_of_the_items_is_raised_here():
    def items():
        yield 1
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        list(read_ahead(lambda item: item, items(), lambda _: 1, threads=2, limit=3))
