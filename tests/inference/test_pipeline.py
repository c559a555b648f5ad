"""Work before and behind the caller's: everything once, bounded, nothing kept, errors seen, threads ended."""

import random
import threading
import time
import weakref
from contextlib import closing

import pytest

from gan_nst.inference.folder import ahead, behind


def settled(read, wanted):
    """Waits until a count reaches what is wanted, and a little longer to see whether it goes on."""
    deadline = time.monotonic() + 10
    while read() < wanted and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(0.1)
    return read()


def ours():
    return [t.name for t in threading.enumerate() if t.name.startswith(("ahead", "behind"))]


class Thing:
    """Something whose end can be seen."""


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("limit", [1, 7, 10_000])
def test_every_item_is_worked_on_once(threads, limit):
    pauses = random.Random(0)

    def work(item):
        time.sleep(pauses.random() / 1000)
        return item * item

    found = list(ahead(work, range(200), lambda result: 3, threads, limit))
    assert sorted(found) == [item * item for item in range(200)]
    assert found == sorted(found) or threads > 1
    assert ours() == []


def test_nothing_begins_while_the_limit_waits():
    begun = []
    with closing(ahead(lambda i: begun.append(i), range(100), lambda _: 4, threads=1, limit=10)) as results:
        assert begun == []
        next(results)
        assert settled(lambda: len(begun), 4) == 4  # one was taken, 4 + 4 + 4 >= 10 wait
        next(results)
        assert settled(lambda: len(begun), 5) == 5
    assert ours() == []


def test_the_number_that_waits_is_bounded_too():
    begun = []
    with closing(ahead(begun.append, range(1000), lambda _: 0, threads=2, limit=10)) as results:
        next(results)
        assert 64 <= settled(lambda: len(begun), 65) <= 66


def test_what_was_taken_is_not_kept():
    """While an item is worked on, the one before, which the caller has dropped, is gone."""
    alive, kept = [], []

    def work(item):
        deadline = time.monotonic() + 2
        while alive and alive[-1]() is not None and time.monotonic() < deadline:
            time.sleep(0.002)
        kept.extend(item for ref in alive if ref() is not None)
        thing = Thing()
        alive.append(weakref.ref(thing))
        return thing

    for thing in ahead(work, range(5), lambda _: 1, threads=1, limit=1):
        del thing
    assert len(alive) == 5
    assert kept == []


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
def test_an_error_ahead_is_raised_here(error):
    def work(item):
        if item == 5:
            raise error
        return item

    with pytest.raises(type(error)):
        list(ahead(work, range(100), lambda _: 1, threads=2, limit=3))
    assert ours() == []


def test_an_error_of_the_items_is_raised_here():
    def items():
        yield 1
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        list(ahead(lambda item: item, items(), lambda _: 1, threads=2, limit=3))


def test_the_next_task_is_made_while_one_is_done():
    made_second = threading.Event()

    def tasks():
        yield (lambda: made_second.wait(10)), 1
        made_second.set()
        yield (lambda: True), 1

    assert list(behind(tasks(), threads=1, limit=10)) == [True, True]
    assert ours() == []


@pytest.mark.parametrize(("limit", "most"), [(10, 3), (1, 1), (1000, 65)])
def test_tasks_are_not_made_while_the_limit_waits(limit, most):
    made, go = [], threading.Event()

    def tasks():
        for number in range(100):
            made.append(number)
            yield (lambda number=number: (go.wait(10), number)[1]), 4

    results = behind(tasks(), threads=1, limit=limit)
    found = []
    taker = threading.Thread(target=lambda: found.extend(results))
    taker.start()
    assert settled(lambda: len(made), most) == most
    go.set()
    taker.join()
    assert found == list(range(100))


def test_a_task_that_is_done_is_not_kept():
    alive = []

    def tasks():
        for _ in range(10):
            thing = Thing()
            alive.append(weakref.ref(thing))
            yield (lambda thing=thing: thing is None), 1
            del thing
            deadline = time.monotonic() + 10
            while alive[-1]() is not None and time.monotonic() < deadline:
                time.sleep(0.002)
            assert alive[-1]() is None

    assert list(behind(tasks(), threads=1, limit=100)) == [False] * 10


def test_an_error_behind_is_raised_here():
    def fail():
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(behind([(lambda: 1, 1), (fail, 1), (lambda: 1, 1)], threads=2, limit=2))
    assert ours() == []


def test_an_interrupt_ends_what_was_begun_and_drops_the_rest():
    done, began, go = [], threading.Event(), threading.Event()

    def first():
        began.set()
        go.wait(10)
        done.append("first")

    def tasks():
        yield first, 0
        yield from [(lambda: done.append("later"), 0)] * 5
        began.wait(10)
        threading.Timer(0.1, go.set).start()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(behind(tasks(), threads=1, limit=100))
    assert done == ["first"]
    assert ours() == []
