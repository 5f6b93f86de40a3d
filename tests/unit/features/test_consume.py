"""The loop of the history consumer."""

from onepiece.errors import FeatureStoreUnavailable
from onepiece.features.consume import UNAVAILABLE_PAUSE_S, consume


class Batches:
    """A consumer with some micro-batches to work off."""

    def __init__(self, *counts: int) -> None:
        self.counts = list(counts)

    def poll(self) -> int:
        return self.counts.pop(0) if self.counts else 0


def test_until_idle_ends_at_the_end_of_the_log_without_waiting():
    pauses = []

    num_read = consume(
        Batches(3, 4),
        should_stop=lambda: False,
        pause=pauses.append,
        is_until_idle=True,
    )

    assert num_read == 7
    assert pauses == []


def test_without_news_it_waits_and_goes_on_until_it_is_stopped():
    batches = Batches(3, 0, 5)
    pauses = []

    num_read = consume(
        batches,
        should_stop=lambda: len(pauses) == 2,
        pause=pauses.append,
        is_until_idle=False,
    )

    assert num_read == 8


def test_a_stop_before_the_first_poll_reads_nothing():
    batches = Batches(3)

    assert consume(batches, should_stop=lambda: True, pause=print, is_until_idle=False) == 0
    assert batches.counts == [3]


def test_a_dependency_that_is_away_is_waited_for():
    class Interrupted(Batches):
        def poll(self) -> int:
            count = super().poll()
            if count < 0:
                raise FeatureStoreUnavailable("away")
            return count

    pauses = []

    num_read = consume(
        Interrupted(2, -1, -1, 3),
        should_stop=lambda: False,
        pause=pauses.append,
        is_until_idle=True,
    )

    assert num_read == 5
    assert pauses == [UNAVAILABLE_PAUSE_S] * 2
