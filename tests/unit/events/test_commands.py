import argparse
import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from onepiece.errors import InvalidEvent, InvalidInput, NotFound
from onepiece.events.commands import add_commands
from onepiece.events.schema import Click, dump_event
from onepiece.events.sqlite_log import SqliteEventLog

NOW_MS = 1_500_000_000_000


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    args = parser.parse_args([str(argument) for argument in arguments])
    return int(args.run(args))


def line(number: int, *, user_id: str = "u") -> bytes:
    return dump_event(
        Click(
            event_id=f"e{number}",
            user_id=user_id,
            at_ms=NOW_MS,
            received_at_ms=NOW_MS,
            item_id="milk",
        )
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    SqliteEventLog.create(tmp_path / "log", num_partitions=2).close()
    return tmp_path / "log"


def num_events(folder: Path) -> int:
    log = SqliteEventLog.open(folder)
    ends = log.end_offsets()
    log.close()
    return sum(ends)


def test_create_makes_a_log_with_the_partitions_given(tmp_path, capsys):
    code = run("create", "--log", tmp_path / "new", "--partitions", 3)

    log = SqliteEventLog.open(tmp_path / "new")
    assert (code, log.num_partitions) == (0, 3)
    assert "3 partitions" in capsys.readouterr().out
    log.close()


def test_append_adds_every_line_of_a_file(folder, tmp_path, capsys):
    (tmp_path / "events.jsonl").write_bytes(b"\n".join([line(0), b"", line(1)]))

    run("append", "--log", folder, "--file", tmp_path / "events.jsonl")

    assert num_events(folder) == 2
    assert "appended 2 events" in capsys.readouterr().out


def test_append_reads_stdin(folder, monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(line(0) + b"\n")))

    run("append", "--log", folder, "--file", "-")

    assert num_events(folder) == 1


def test_one_bad_line_appends_nothing_and_is_named(folder, tmp_path):
    (tmp_path / "events.jsonl").write_bytes(b"\n".join([line(0), b"{", line(1), b'{"a": 1}']))

    with pytest.raises(InvalidEvent, match=r"2 bad lines(?s:.*)line 2: (?s:.*)line 4: ") as caught:
        run("append", "--log", folder, "--file", tmp_path / "events.jsonl")

    assert caught.value.exit_code == 2
    assert num_events(folder) == 0


def test_many_bad_lines_are_counted_and_not_all_shown(folder, tmp_path):
    (tmp_path / "events.jsonl").write_bytes(b"{\n" * 500)

    with pytest.raises(InvalidEvent, match=r"500 bad lines(?s:.*)and 480 more"):
        run("append", "--log", folder, "--file", tmp_path / "events.jsonl")


def test_a_missing_file_is_not_found(folder, tmp_path):
    with pytest.raises(NotFound, match="give a file of one event a line, or -"):
        run("append", "--log", folder, "--file", tmp_path / "none.jsonl")


def test_tail_prints_the_last_events_as_json_lines(folder, tmp_path, capsys):
    (tmp_path / "events.jsonl").write_bytes(b"\n".join(line(number) for number in range(5)))
    run("append", "--log", folder, "--file", tmp_path / "events.jsonl")
    capsys.readouterr()

    run("tail", "--log", folder, "--limit", 2, "--json")

    lines = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert [entry["event"]["event_id"] for entry in lines] == ["e3", "e4"]
    assert [entry["offset"] for entry in lines] == [3, 4]


def test_tail_starts_where_it_is_told(folder, tmp_path, capsys):
    (tmp_path / "events.jsonl").write_bytes(b"\n".join(line(number) for number in range(5)))
    run("append", "--log", folder, "--file", tmp_path / "events.jsonl")
    run("tail", "--log", folder, "--limit", 1, "--json")
    partition = json.loads(capsys.readouterr().out.splitlines()[-1])["partition"]

    run("tail", "--log", folder, "--partition", partition, "--offset", 1, "--limit", 2)

    assert [text.split()[-1] for text in capsys.readouterr().out.splitlines()] == ["e1", "e2"]


@pytest.mark.parametrize("flags", [("--limit", 0), ("--partition", 7), ("--offset", -1)])
def test_tail_refuses_what_the_log_does_not_have(folder, flags):
    with pytest.raises(InvalidInput, match=r"give|has partitions 0 to 1"):
        run("tail", "--log", folder, *flags)


def test_stats_shows_how_far_each_group_is(folder, tmp_path, capsys):
    (tmp_path / "events.jsonl").write_bytes(b"\n".join(line(number) for number in range(5)))
    run("append", "--log", folder, "--file", tmp_path / "events.jsonl")
    capsys.readouterr()
    log = SqliteEventLog.open(folder)
    ends = log.end_offsets()
    log.commit("history", {ends.index(5): 3})
    log.close()

    run("stats", "--log", folder, "--json")

    answer = json.loads(capsys.readouterr().out)
    assert answer["num_events"] == 5
    assert answer["end_offsets"] == ends
    assert answer["groups"]["history"]["lag"] == 2
