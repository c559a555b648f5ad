"""Work in threads before and behind the caller's own, where what waits between them is bounded."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar, cast

T = TypeVar("T")
R = TypeVar("R")

_MOST = 64  # results that wait, however small they are
_NONE = object()


def ahead(
    work: Callable[[T], R], items: Iterable[T], weigh: Callable[[R], int], threads: int, limit: int
) -> Generator[R, None, None]:
    """The results of `work` for every item, computed in threads while the caller is busy; their order may change.

    No thread begins with an item while results of `limit` bytes, by `weigh`, wait for the caller. What `work` raises
    is raised here. Close it (contextlib.closing), and the threads end after the items they are at.
    """
    shelf: _Shelf[R] = _Shelf(threads, limit)
    left, turn = iter(items), threading.Lock()

    def next_items() -> Iterator[T]:
        while shelf.wait_for_room():
            with turn:
                item = next(left, _NONE)
            if item is _NONE:
                return
            yield cast(T, item)

    def run() -> None:
        try:
            for item in next_items():
                result = work(item)
                shelf.put(result, weigh(result))
                del result  # or it is held while the thread waits for room
            shelf.leave()
        except BaseException as error:
            shelf.leave(error)

    workers = [threading.Thread(target=run, name="ahead") for _ in range(threads)]
    try:
        for worker in workers:
            worker.start()
        yield from shelf
    finally:
        shelf.close()
        for worker in workers:
            if worker.ident is not None:
                worker.join()


def behind(
    tasks: Iterable[tuple[Callable[[], R], int]], threads: int, limit: int
) -> Generator[R, None, None]:
    """The results of tasks, in order, each done in a thread while the caller makes the next.

    A task comes with the bytes it holds; further ones are not asked for while those waiting hold `limit`. What a task
    raises is raised here. Close it, and tasks that have not begun are dropped, those begun come to their end.
    """
    pending: deque[tuple[Future[R], int]] = deque()
    held = 0
    pool = ThreadPoolExecutor(threads, "behind")
    try:
        for task, size in tasks:
            pending.append((pool.submit(task), size))
            held += size
            del task  # or what it holds lives on while the next one is made
            while pending and (pending[0][0].done() or held > limit or len(pending) > _MOST):
                future, size = pending.popleft()
                held -= size
                yield future.result()
        while pending:
            yield pending.popleft()[0].result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Shelf(Generic[R]):
    """Where threads lay results of about `limit` bytes for one that takes them."""

    def __init__(self, threads: int, limit: int) -> None:
        self._results: deque[tuple[R, int]] = deque()
        self._held, self._limit = 0, limit
        self._threads = threads
        self._error: BaseException | None = None
        self._closed = False
        self._change = threading.Condition()

    def wait_for_room(self) -> bool:
        """Whether to go on, said when there is room."""
        with self._change:
            self._change.wait_for(
                lambda: self._closed or (self._held < self._limit and len(self._results) < _MOST)
            )
            return not self._closed

    def put(self, result: R, size: int) -> None:
        with self._change:
            self._results.append((result, size))
            self._held += size
            self._change.notify_all()

    def leave(self, error: BaseException | None = None) -> None:
        """A thread's last word."""
        with self._change:
            self._threads -= 1
            self._error = self._error or error
            self._change.notify_all()

    def close(self) -> None:
        with self._change:
            self._closed = True
            self._results.clear()
            self._change.notify_all()

    def __iter__(self) -> Iterator[R]:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._results or self._error or self._threads == 0)
                if self._error is not None:
                    raise self._error
                if not self._results:
                    return
                result, size = self._results.popleft()
                self._held -= size
                self._change.notify_all()
            yield result
            del result
