import sqlite3
import threading
from pathlib import Path

import pytest

from onepiece.errors import (
    EventLogUnavailable,
    InvalidInput,
    NotFound,
    OutputExists,
    StorageFull,
)
from onepiece.events.schema import Click
from onepiece.events.sqlite_log import FILE_NAME, SqliteEventLog

NOW_MS = 1_500_000_000_000


def clicks(count: int, *, user_id: str = "u", start: int = 0) -> list[Click]:
    return [
        Click(
            event_id=f"e{number}",
            user_id=user_id,
            at_ms=NOW_MS,
            received_at_ms=NOW_MS,
            item_id="milk" * 20,
        )
        for number in range(start, start + count)
    ]


def event_ids(log: SqliteEventLog) -> list[str]:
    return [
        record.event.event_id
        for partition in range(log.num_partitions)
        for record in log.read(partition, 0)
    ]


def test_a_log_is_never_made_twice(tmp_path):
    SqliteEventLog.create(tmp_path, num_partitions=2).close()

    with pytest.raises(OutputExists, match="open it, or give another folder"):
        SqliteEventLog.create(tmp_path, num_partitions=2)

    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize("num_partitions", [0, -1, 1_025])
def test_the_number_of_partitions_is_bounded(tmp_path, num_partitions):
    with pytest.raises(InvalidInput, match=f"num_partitions is {num_partitions}; give 1 to 1024"):
        SqliteEventLog.create(tmp_path, num_partitions=num_partitions)

    assert list(tmp_path.iterdir()) == []


def test_the_number_of_partitions_is_read_from_the_file(tmp_path):
    SqliteEventLog.create(tmp_path, num_partitions=5).close()

    log = SqliteEventLog.open(tmp_path)

    assert log.num_partitions == 5
    log.close()


def test_a_folder_without_a_log_is_not_found(tmp_path):
    with pytest.raises(NotFound, match="make a log with: onepiece events create"):
        SqliteEventLog.open(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / FILE_NAME).write_bytes(b"receipts\n" * 1_000)

    with pytest.raises(InvalidInput, match="give the folder of an event log"):
        SqliteEventLog.open(tmp_path)


def test_another_program_s_database_is_refused(tmp_path):
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute("CREATE TABLE receipts (id INTEGER)")
    connection.close()

    with pytest.raises(InvalidInput, match="is not an event log"):
        SqliteEventLog.open(tmp_path)


def test_a_log_of_another_format_is_refused(tmp_path):
    SqliteEventLog.create(tmp_path, num_partitions=1).close()
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute("PRAGMA user_version = 2")
    connection.close()

    with pytest.raises(InvalidInput, match="has format 2, this version reads format 1"):
        SqliteEventLog.open(tmp_path)


def test_a_damaged_log_says_that_it_is_damaged(tmp_path):
    log = SqliteEventLog.create(tmp_path, num_partitions=1)
    log.append(clicks(2_000))
    log.close()
    path = tmp_path / FILE_NAME
    content = path.read_bytes()
    path.write_bytes(content[: 8192 * 4] + b"\xff" * (len(content) - 8192 * 4))
    damaged = SqliteEventLog.open(tmp_path)

    with pytest.raises(EventLogUnavailable, match="damaged: restore it from a copy"):
        damaged.read(0, 0)

    damaged.close()


def test_a_full_disk_appends_nothing_and_the_log_lives_on(tmp_path):
    SqliteEventLog.create(tmp_path, num_partitions=3).close()
    log = SqliteEventLog.open(tmp_path, max_bytes=200_000)
    first = [click for user in "abc" for click in clicks(10, user_id=user)]
    log.append(first)
    before = event_ids(log)

    with pytest.raises(StorageFull, match="nothing was written: free some space"):
        log.append([click for user in "abc" for click in clicks(5_000, user_id=user, start=10)])

    assert event_ids(log) == before
    log.append(clicks(1, user_id="a", start=10))
    assert len(event_ids(log)) == 31
    log.close()


def test_an_append_that_fails_half_way_leaves_nothing(make_log):
    log = make_log(1)
    log.append(clicks(3))
    connection = sqlite3.connect(log.path)
    connection.execute(
        "CREATE TRIGGER refusal BEFORE INSERT ON records WHEN NEW.offset = 5"
        " BEGIN SELECT RAISE(ABORT, 'refused'); END"
    )

    with pytest.raises(EventLogUnavailable, match="refused"):
        log.append(clicks(5, start=3))

    assert log.end_offsets() == [3]
    connection.execute("DROP TRIGGER refusal")
    connection.close()
    log.append(clicks(5, start=3))
    assert event_ids(log) == [f"e{number}" for number in range(8)]


def test_threads_that_append_at_once_lose_and_mix_up_nothing(make_log):
    log = make_log(2)

    def append(user_id: str) -> None:
        for number in range(30):
            log.append(clicks(3, user_id=user_id, start=number * 3))

    threads = [threading.Thread(target=append, args=(f"u{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for user_id in ("u0", "u1", "u2", "u3"):
        kept = [
            record.event.event_id
            for partition in range(2)
            for record in log.read(partition, 0)
            if record.event.user_id == user_id
        ]
        assert kept == [f"e{number}" for number in range(90)]


def test_offsets_have_no_gaps(make_log):
    log = make_log(2)
    for number in range(5):
        log.append(clicks(3, user_id=f"u{number}"))

    offsets = [[r.position.offset for r in log.read(partition, 0)] for partition in range(2)]

    assert offsets == [list(range(end)) for end in log.end_offsets()]


def test_groups_are_those_that_committed(make_log):
    log = make_log(2)
    log.commit("history", {0: 0})
    log.commit("anchors", {0: 0, 1: 0})

    assert log.groups() == ["anchors", "history"]


def test_a_folder_that_is_a_file_is_refused_in_words(tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("")

    with pytest.raises(EventLogUnavailable, match="check the disk and the permissions"):
        SqliteEventLog.create(path, num_partitions=1)
