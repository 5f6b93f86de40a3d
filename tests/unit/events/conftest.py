"""Strategies and fixtures for the tests of `onepiece.events`."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onepiece.events.sqlite_log import SqliteEventLog


@pytest.fixture
def make_log(tmp_path: Path) -> Iterator[Callable[..., SqliteEventLog]]:
    """Makes embedded logs, each in a folder of its own, and closes them."""
    logs: list[SqliteEventLog] = []

    def make(num_partitions: int = 3) -> SqliteEventLog:
        folder = tmp_path / f"log{len(logs)}"
        logs.append(SqliteEventLog.create(folder, num_partitions=num_partitions))
        return logs[-1]

    yield make
    for log in logs:
        log.close()
