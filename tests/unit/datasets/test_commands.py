import argparse
import json

import pyarrow.parquet as pq
import pytest

from onepiece.datasets.commands import add_commands
from onepiece.errors import InvalidDataset, InvalidInput, OutputExists
from onepiece.events.commands import add_commands as add_event_commands
from onepiece.events.sqlite_log import SqliteEventLog


def run(*arguments, dataset="complete-journey"):
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    args = parser.parse_args(["import", dataset, *map(str, arguments)])
    return args.run(args)


def test_an_import_writes_four_files_and_prints_the_counts_as_json(
    write_shop_files, tmp_path, capsys
):
    source, out = write_shop_files(), tmp_path / "made" / "shop"

    code = run("--source", source, "--out", out, "--json")

    answer = json.loads(capsys.readouterr().out)
    orders = pq.read_table(out / "orders.parquet").to_pylist()
    counts = json.loads((out / "counts.json").read_text())
    assert code == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "catalogue.parquet",
        "counts.json",
        "orders.parquet",
        "profiles.parquet",
    ]
    assert answer["counts"]["num_lines"] == counts["lines"]["num_lines"] == 3
    assert answer["is_as_published"]["num_lines"] is False
    assert [row["event_id"] for row in orders] == ["receipt-11", "receipt-11", "receipt-12"]
    assert [row["item_id"] for row in orders] == ["20", "3", "3"]
    assert pq.read_table(out / "catalogue.parquet")["item_id"].to_pylist() == ["100", "20", "3"]
    assert pq.read_table(out / "profiles.parquet").to_pylist()[0]["user_id"] == "1"


def test_an_import_says_where_counts_differ_from_the_published_ones(
    write_shop_files, tmp_path, capsys
):
    run("--source", write_shop_files(), "--out", tmp_path / "shop")

    lines = capsys.readouterr().out.splitlines()
    assert any(row.split() == ["num_lines", "3", "published:", "1,469,307"] for row in lines)


def test_an_import_overwrites_nothing(write_shop_files, tmp_path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "theirs").touch()

    with pytest.raises(OutputExists, match="never overwritten"):
        run("--source", write_shop_files(), "--out", tmp_path / "shop")

    assert [path.name for path in (tmp_path / "shop").iterdir()] == ["theirs"]


def test_a_failed_import_leaves_nothing_behind(write_shop_files, tmp_path):
    source, folder = write_shop_files(), tmp_path / "results"
    (source / "demographics.parquet").unlink()

    with pytest.raises(InvalidDataset):
        run("--source", source, "--out", folder / "shop")

    assert not folder.exists()


def test_an_output_below_a_file_is_refused(write_shop_files, tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(InvalidInput, match="cannot be written"):
        run("--source", write_shop_files(), "--out", tmp_path / "file" / "shop")


def test_an_import_of_events_prints_its_counts_as_json(source_of, tmp_path, capsys):
    code = run("--source", source_of("otto"), "--out", tmp_path / "shop", "--json", dataset="otto")

    answer = json.loads(capsys.readouterr().out)
    assert code == 0
    assert answer["counts"] == json.loads((tmp_path / "shop" / "counts.json").read_text())
    assert answer["is_as_published"]["num_sessions"] is False


def test_an_import_of_events_can_be_appended_to_a_log(source_of, tmp_path, capsys):
    run("--source", source_of("trivago"), "--out", tmp_path / "shop", dataset="trivago")
    log = SqliteEventLog.create(tmp_path / "log", num_partitions=2)
    log.close()
    parser = argparse.ArgumentParser()
    add_event_commands(parser.add_subparsers())
    part = tmp_path / "shop" / "events" / "part-00000.jsonl"
    args = parser.parse_args(["append", "--log", str(tmp_path / "log"), "--file", str(part)])

    code = args.run(args)

    assert code == 0
    assert "appended 9 events" in capsys.readouterr().out


def test_an_import_of_events_needs_a_source(tmp_path):
    with pytest.raises(InvalidInput, match="--source is missing; give the folder"):
        run("--out", tmp_path / "shop", dataset="otto")
