"""Prepares what comes next in a thread while the present step computes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

ItemT = TypeVar("ItemT")
PreparedT = TypeVar("PreparedT")

_NUM_AHEAD = 2
"""Items prepared beforehand; chosen here: one is in use, one more rides out a slow disk."""


def prefetched(
    items: Iterable[ItemT], prepare: Callable[[ItemT], PreparedT]
) -> Iterator[PreparedT]:
    """Yields `prepare(item)` of each item in order; what it raises is raised at its turn.

    Padding gathers from memory maps, and torch computes without Python's lock, so the two
    overlap. The thread ends with the iterator, exhausted or closed.
    """
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[PreparedT]] = deque()
        for item in items:
            waiting.append(pool.submit(prepare, item))
            if len(waiting) > _NUM_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
