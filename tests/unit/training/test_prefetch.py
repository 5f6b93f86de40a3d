import threading

import pytest

from onepiece.training.prefetch import prefetched


def test_items_come_prepared_in_their_order() -> None:
    assert list(prefetched(range(20), lambda n: n * n)) == [n * n for n in range(20)]


def test_nothing_comes_of_nothing() -> None:
    assert list(prefetched([], lambda n: n)) == []


def test_the_next_item_is_prepared_while_this_one_is_used() -> None:
    prepared = [threading.Event() for _ in range(3)]

    source = prefetched(range(3), lambda n: prepared[n].set())
    next(source)

    assert prepared[1].wait(timeout=30)


def test_what_fails_is_raised_at_its_turn() -> None:
    source = prefetched([1, 0, 1], lambda n: 1 // n)

    assert next(source) == 1
    with pytest.raises(ZeroDivisionError):
        next(source)


def test_the_thread_ends_with_an_iterator_that_is_closed() -> None:
    before = threading.active_count()
    source = prefetched(range(100), lambda n: n)
    next(source)

    source.close()

    assert threading.active_count() == before
