"""The embedded log among several processes, and after one was killed."""

import subprocess
import sys
from pathlib import Path

import pytest

from onepiece.events.schema import Click
from onepiece.events.sqlite_log import SqliteEventLog

pytestmark = pytest.mark.integration

NOW_MS = 1_500_000_000_000
APPENDER = """
import sys
from itertools import count
from pathlib import Path
from onepiece.events.schema import Click
from onepiece.events.sqlite_log import SqliteEventLog

folder, user_id, limit = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
log = SqliteEventLog.open(folder)
for number in count():
    if number == limit:
        break
    events = [
        Click(event_id=f"{user_id}-{number}-{part}", user_id=f"{user_id}{part}",
              at_ms=1_500_000_000_000, received_at_ms=1_500_000_000_000, item_id="milk" * 30)
        for part in range(3)
    ]
    for event, position in zip(events, log.append(events)):
        print(position.partition, position.offset, event.event_id, flush=True)
log.close()
"""
FOREVER = -1


def start_appender(folder: Path, user_id: str, limit: int) -> "subprocess.Popen[str]":
    arguments = [sys.executable, "-c", APPENDER, str(folder), user_id, str(limit)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def read_all(log: SqliteEventLog) -> dict[tuple[int, int], str]:
    return {
        (record.position.partition, record.position.offset): record.event.event_id
        for partition in range(log.num_partitions)
        for record in log.read(partition, 0, max_records=1_000_000)
    }


def acknowledged(lines: list[str]) -> dict[tuple[int, int], str]:
    found = {}
    for line in lines:
        partition, offset, event_id = line.split()
        found[int(partition), int(offset)] = event_id
    return found


@pytest.mark.parametrize("num_lines", [3, 100, 401])
def test_what_was_acknowledged_survives_a_kill_and_the_log_goes_on(tmp_path, num_lines):
    SqliteEventLog.create(tmp_path, num_partitions=4).close()
    appender = start_appender(tmp_path, "u", FOREVER)
    lines = [appender.stdout.readline() for _ in range(num_lines)]

    appender.kill()
    rest, _ = appender.communicate()

    # The last line may be cut off; what it says was acknowledged all the same, but to nobody.
    told = acknowledged(lines + rest.splitlines(keepends=True)[:-1])
    log = SqliteEventLog.open(tmp_path)
    kept = read_all(log)
    assert len(told) >= num_lines
    assert told.items() <= kept.items()
    # An append is there with all of its three events or not at all.
    appends = [event_id.rsplit("-", 1)[0] for event_id in kept.values()]
    assert {appends.count(append) for append in set(appends)} == {3}
    ends = log.end_offsets()
    assert [sorted(offset for at, offset in kept if at == partition) for partition in range(4)] == [
        list(range(end)) for end in ends
    ]
    (position,) = log.append(
        [
            Click(
                event_id="next",
                user_id="u0",
                at_ms=NOW_MS,
                received_at_ms=NOW_MS,
                item_id="milk",
            )
        ]
    )
    assert position.offset == ends[position.partition]
    log.close()


def test_processes_that_append_at_once_get_positions_of_their_own(tmp_path):
    SqliteEventLog.create(tmp_path, num_partitions=2).close()

    appenders = [start_appender(tmp_path, user_id, 40) for user_id in ("a", "b", "c")]
    outputs = [appender.communicate(timeout=60)[0] for appender in appenders]

    told = [acknowledged(output.splitlines()) for output in outputs]
    log = SqliteEventLog.open(tmp_path)
    assert [appender.returncode for appender in appenders] == [0, 0, 0]
    assert [len(positions) for positions in told] == [120, 120, 120]
    assert read_all(log) == {**told[0], **told[1], **told[2]}
    assert sum(log.end_offsets()) == 360
    log.close()


def test_a_reader_in_another_process_sees_only_whole_appends(tmp_path):
    SqliteEventLog.create(tmp_path, num_partitions=2).close()
    log = SqliteEventLog.open(tmp_path)
    appender = start_appender(tmp_path, "u", 60)

    while appender.poll() is None:
        assert sum(log.end_offsets()) % 3 == 0
        appender.stdout.readline()

    appender.communicate()
    assert sum(log.end_offsets()) == 180
    log.close()
