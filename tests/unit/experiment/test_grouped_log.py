"""Appends of many threads become few; nobody pays for another's."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from onepiece.errors import EventLogUnavailable, InvalidInput
from onepiece.events.log import Position
from onepiece.events.schema import Click
from onepiece.events.sqlite_log import SqliteEventLog
from onepiece.experiment.grouped_log import GroupedLog


def click(name: str) -> Click:
    return Click(
        event_id=name,
        user_id="u",
        at_ms=1_500_000_000_000,
        received_at_ms=1_500_000_000_001,
        item_id="i",
    )


class Log:
    """Takes groups, one at a time, when it is let; refuses as the test says."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.let = threading.Semaphore(0)
        self.is_asked = threading.Semaphore(0)
        self.refusal = lambda names: None

    def append(self, events):
        names = [event.event_id for event in events]
        self.is_asked.release()
        assert self.let.acquire(timeout=30)
        if (error := self.refusal(names)) is not None:
            raise error
        self.groups.append(names)
        return [Position(0, int(name)) for name in names]


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def grouped(log):
    grouped = GroupedLog(log)
    yield grouped
    for _ in range(100):
        log.let.release()
    grouped.close()


def append_behind_the_first(log, grouped, names):
    """Appends 0, and the others while that is under way; returns what became of each."""
    pool = ThreadPoolExecutor(len(names) + 1)
    first = pool.submit(grouped.append, [click("0")])
    assert log.is_asked.acquire(timeout=30)
    others = {name: pool.submit(grouped.append, [click(name)]) for name in names}
    while grouped._waiting.qsize() < len(names):
        threading.Event().wait(0.001)
    for _ in range(100):
        log.let.release()
    assert first.result(30) == [Position(0, 0)]
    pool.shutdown(wait=True)
    return others


def test_who_waits_is_appended_together_and_told_her_own_positions(log, grouped):
    others = append_behind_the_first(log, grouped, ["1", "2", "3", "4"])

    assert [len(group) for group in log.groups] == [1, 4]
    assert sorted(log.groups[1]) == ["1", "2", "3", "4"]
    for name, done in others.items():
        assert done.result() == [Position(0, int(name))]


def test_a_log_that_is_away_is_told_to_all_and_asked_once(log, grouped):
    log.refusal = lambda names: EventLogUnavailable("away") if names != ["0"] else None

    others = append_behind_the_first(log, grouped, ["1", "2", "3"])

    assert all(isinstance(done.exception(), EventLogUnavailable) for done in others.values())
    assert log.groups == [["0"]]


def test_a_refused_event_costs_its_own_caller_only(log, grouped):
    log.refusal = lambda names: InvalidInput("too large") if "2" in names else None

    others = append_behind_the_first(log, grouped, ["1", "2", "3"])

    assert isinstance(others["2"].exception(), InvalidInput)
    assert others["1"].result() == [Position(0, 1)]
    assert others["3"].result() == [Position(0, 3)]


def test_a_closed_log_takes_nothing_more(log):
    grouped = GroupedLog(log)
    grouped.close()

    with pytest.raises(EventLogUnavailable, match="stopping"):
        grouped.append([click("1")])


def test_positions_are_those_of_a_real_log(tmp_path):
    log = SqliteEventLog.create(tmp_path / "log", num_partitions=2)
    grouped = GroupedLog(log)
    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(grouped.append, [click(str(number))]) for number in range(200)]

    for number, future in enumerate(done):
        [position] = future.result()
        [record] = log.read(position.partition, position.offset, max_records=1)
        assert record.event.event_id == str(number)
    assert sum(log.end_offsets()) == 200
    grouped.close()
    log.close()
