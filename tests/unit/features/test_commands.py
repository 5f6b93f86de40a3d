"""The verbs of `onepiece features`."""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from pyarrow.parquet import read_table, write_table

from onepiece.datasets.catalogue_file import read_catalogue, write_catalogue
from onepiece.errors import DeadlineExceeded, InvalidDataset, InvalidInput, NotFound
from onepiece.events.history import HistoryConsumer, HistoryRecipe
from onepiece.events.item_updates import ItemUpdate, dump_item_update
from onepiece.events.log import read_standing_events
from onepiece.events.sqlite_log import SqliteEventLog
from onepiece.features.backfill import read_profiles
from onepiece.features.commands import add_commands
from onepiece.features.feast_settings import FeatureStoreSettings
from onepiece.features.feast_store import FeastStore
from onepiece.features.item_table import ItemTableRecipe, SalesLedger, compute_item_table
from onepiece.features.open_store import open_online_store
from onepiece.features.store import SignalKey, UserProfile
from onepiece.features.table_options import add_update_options, opened_tables
from onepiece.features.view_rows import ViewRow, offline_table

REPOSITORY = Path(__file__).parents[3] / "feature_repo"


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    args = parser.parse_args(arguments)
    return args.run(args)


@pytest.fixture
def catalogue(shop, tmp_path):
    path = tmp_path / "catalogue.parquet"
    write_catalogue(shop.catalogue, path)
    return str(path)


@pytest.fixture
def log(shop, tmp_path):
    log = SqliteEventLog.create(tmp_path / "log", num_partitions=2)
    log.append([shop.order("o1", "a", "b"), shop.order("o2", "c")])
    log.close()
    return str(tmp_path / "log")


def test_a_catalogue_is_read_back_as_it_was_written(shop, catalogue, tmp_path):
    assert read_catalogue(tmp_path / "catalogue.parquet") == shop.catalogue


def test_backfill_writes_the_files_and_says_how_many_rows(log, catalogue, tmp_path, capsys):
    out = tmp_path / "offline"

    code = run("backfill", "--log", log, "--catalogue", catalogue, "--out", str(out), "--json")

    answer = json.loads(capsys.readouterr().out)
    assert code == 0
    assert answer["user_recent_history"] == 1
    assert (out / "user_recent_history.parquet").is_file()


def test_backfill_of_an_empty_log_says_what_to_do(catalogue, tmp_path):
    SqliteEventLog.create(tmp_path / "empty", num_partitions=1).close()

    with pytest.raises(InvalidInput, match="append events first"):
        run(
            *("backfill", "--log", str(tmp_path / "empty"), "--catalogue", catalogue),
            *("--out", str(tmp_path / "offline")),
        )


def test_a_missing_catalogue_is_named(log, tmp_path):
    with pytest.raises(NotFound, match=r"nowhere\.parquet"):
        run(
            *("backfill", "--log", log, "--catalogue", str(tmp_path / "nowhere.parquet")),
            *("--out", str(tmp_path / "offline")),
        )


def test_backfill_counts_anchors_by_the_recipe_and_keeps_the_profiles(shop, catalogue, tmp_path):
    write_table(
        offline_table("user_profile", [ViewRow(("u",), 0, ("25-34", "50-74K", "2"))]),
        tmp_path / "profiles.parquet",
    )
    (tmp_path / "features.yaml").write_text("anchors: {max_items_per_group: 2}\n")
    log = SqliteEventLog.create(tmp_path / "log", num_partitions=1)
    log.append([shop.order("o1", "a", "c", "f", query_id="milk", days_before=1.5)])
    log.append([shop.order("o2", "a", days_before=0)])
    log.close()

    run(
        *("backfill", "--log", str(tmp_path / "log"), "--catalogue", catalogue),
        *("--recipe", str(tmp_path / "features.yaml")),
        *("--profiles", str(tmp_path / "profiles.parquet"), "--out", str(tmp_path / "offline")),
    )

    anchors = read_table(tmp_path / "offline" / "query_anchors.parquet").to_pylist()
    assert anchors[-1]["ordered_item_ids"] == ["a", "c"]
    profiles = read_profiles(tmp_path / "offline" / "user_profile.parquet")
    assert profiles == {"u": UserProfile("25-34", "50-74K", "2")}


def test_a_file_without_profiles_is_refused(log, catalogue, tmp_path):
    backfilled = ("backfill", "--log", log, "--catalogue", catalogue, "--out", str(tmp_path / "o"))

    with pytest.raises(NotFound, match=r"no profiles at .*nowhere\.parquet"):
        run(*backfilled, "--profiles", str(tmp_path / "nowhere.parquet"))
    with pytest.raises(InvalidDataset, match="it needs the columns user_id, age_group"):
        run(*backfilled, "--profiles", catalogue)


@pytest.mark.parametrize("verb", ["anchors", "apply", "backfill", "check", "consume"])
def test_each_verb_explains_itself_with_an_example(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(verb, "--help")

    assert stopped.value.code == 0
    assert f"example: onepiece features {verb}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.integration
def test_apply_consume_and_check_work_on_one_store(
    shop, repository, log, catalogue, tmp_path, capsys
):
    store = str(tmp_path / "store")
    shared = ("--log", log, "--catalogue", catalogue, "--store", store, "--json")

    applied = run("apply", "--repo", str(repository / "feature_repo"), "--store", store, "--json")
    before = run("check", *shared)
    consumed = run("consume", "--until-idle", *shared)
    after = run("check", *shared)

    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (applied, before, consumed, after) == (0, 0, 0, 0)
    assert answers[0]["online"] == "sqlite"
    # Nothing is consumed yet, so nothing is missing.
    assert answers[1]["num_keys"] == 0
    assert answers[2] == {"num_records": 2}
    assert (answers[3]["num_keys"], answers[3]["num_mismatches"]) == (3, 0)


@pytest.mark.integration
def test_anchors_of_a_log_of_another_time_are_written_once(shop, repository, tmp_path, capsys):
    store = str(tmp_path / "store")
    run("apply", "--repo", str(repository / "feature_repo"), "--store", store)
    log = SqliteEventLog.create(tmp_path / "log", num_partitions=2)
    log.append([shop.order("o1", "a", "b", query_id="milk", days_before=1.0)])
    log.close()
    capsys.readouterr()

    code = run(
        *("anchors", "--log", str(tmp_path / "log"), "--store", store, "--json"),
        *("--state", str(tmp_path / "state"), "--as-of-ms", str(shop.t0)),
    )

    with closing(open_online_store(tmp_path / "store")) as online:
        (signals,) = online.read([SignalKey("u", "milk", "milk", shop.t0)])
    assert code == 0
    assert json.loads(capsys.readouterr().out) == {"num_records": 1}
    assert signals.anchors.ordered == ("a", "b")


@pytest.mark.parametrize("interval_s", ["0.05", "7"])
def test_an_interval_that_does_not_divide_a_day_is_refused(interval_s, log, tmp_path):
    with pytest.raises(InvalidInput, match="divisor of a day"):
        run(
            *("anchors", "--log", log, "--store", str(tmp_path / "store")),
            *("--state", str(tmp_path / "state"), "--interval-s", interval_s),
        )


@pytest.mark.integration
def test_consume_and_check_keep_as_much_of_the_past_as_the_recipe_says(
    shop, repository, log, catalogue, tmp_path, capsys
):
    store = str(tmp_path / "store")
    shared = ("--log", log, "--catalogue", catalogue, "--store", store, "--json")
    (tmp_path / "features.yaml").write_text("history: {max_memory_events: 1}\n")
    short = (*shared, "--recipe", str(tmp_path / "features.yaml"))
    run("apply", "--repo", str(repository / "feature_repo"), "--store", store)
    run("consume", "--until-idle", *short)
    capsys.readouterr()

    codes = (run("check", *short), run("check", *shared))

    alike, other = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert codes == (0, 1)
    assert alike["num_mismatches"] == 0
    assert other["examples"] == ["u: memory of milk"]


@pytest.mark.integration
@pytest.mark.parametrize("verb", ["consume", "anchors"])
def test_what_runs_for_ever_stops_cleanly_on_sigterm(
    verb, shop, repository, log, catalogue, tmp_path
):
    store = str(tmp_path / "store")
    run("apply", "--repo", str(repository / "feature_repo"), "--store", store)
    script = (
        "import argparse, sys; from onepiece.features.commands import add_commands; "
        "parser = argparse.ArgumentParser(); add_commands(parser.add_subparsers()); "
        "args = parser.parse_args(); sys.exit(args.run(args))"
    )
    own = {"consume": ["--catalogue", catalogue], "anchors": ["--state", str(tmp_path / "state")]}
    arguments = [verb, "--log", log, "--store", store, "--json", *own[verb]]
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )

    try:
        ready = any(line.endswith("ready\n") for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()

    assert ready
    assert process.returncode == 0
    assert set(json.loads(out)) == {"num_records"}


def test_a_forgotten_user_is_nowhere_and_others_stay(shop, catalogue, tmp_path, capsys):
    log = SqliteEventLog.create(tmp_path / "log", num_partitions=2)
    other = shop.order("o3", "b").model_copy(update={"user_id": "other"})
    log.append([shop.order("o1", "a", "b"), shop.order("o2", "c"), other])
    store = FeastStore.create(REPOSITORY, FeatureStoreSettings(folder=tmp_path / "store"))
    consumer = HistoryConsumer(
        log, store, category_of=shop.catalogue.category_of, recipe=HistoryRecipe()
    )
    consumer.poll()
    where = ("--log", str(tmp_path / "log"), "--catalogue", catalogue)
    run("backfill", *where, "--out", str(store.offline_folder))
    folding = threading.Thread(target=poll_until_erased, args=(consumer,))
    folding.start()

    code = run("forget-user", "u", *where, "--store", str(tmp_path / "store"), "--json")
    folding.join()

    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert code == 0
    assert told["num_offline_rows_removed"] > 0
    assert (told["num_offline_rows_left"], told["num_online_rows_left"]) == (0, 0)
    assert told["num_events_in_log"] == 2
    signals = store.read([SignalKey(user, "-", "yogurt", shop.t0) for user in ("u", "other")])
    assert [one.is_known_user for one in signals] == [False, True]
    users = read_table(store.offline_folder / "user_recent_history.parquet")["user_id"]
    assert set(users.to_pylist()) == {"other"}
    assert [event.user_id for event in read_standing_events(log)] == ["other"]
    store.close()
    log.close()


def poll_until_erased(consumer) -> None:
    """Folds until one event came; the barrier of the command waits for it."""
    while not consumer.poll():
        time.sleep(0.01)


def test_a_user_is_not_called_forgotten_before_the_consumer_knows(shop, catalogue, log, tmp_path):
    FeastStore.create(REPOSITORY, FeatureStoreSettings(folder=tmp_path / "store")).close()

    with pytest.raises(DeadlineExceeded, match="history consumer"):
        run(
            *("forget-user", "u", "--log", log, "--catalogue", catalogue),
            *("--store", str(tmp_path / "store"), "--timeout-s", "0.3"),
        )


def test_updates_are_put_on_the_tables_only_with_their_currency(shop, tmp_path):
    tables = tmp_path / "tables"
    compute_item_table(
        SalesLedger(), shop.catalogue, valid_from_ms=shop.t0, recipe=ItemTableRecipe()
    ).save(tables)
    updates = [
        ItemUpdate(item_id=item, price=2.0, currency=currency, at_ms=shop.t0 + 1)
        for item, currency in (("a", "EUR"), ("b", "USD"))
    ]
    (tmp_path / "updates.jsonl").write_bytes(b"\n".join(map(dump_item_update, updates)))
    parser = argparse.ArgumentParser()
    add_update_options(parser)
    given = ["--item-updates", str(tmp_path / "updates.jsonl")]

    table = opened_tables(tables, parser.parse_args([*given, "--item-currency", "EUR"])).at(
        shop.t0 + 2
    )

    assert table.price_now(table.rows_of(["a", "b"])).tolist() == [2.0, 0.0]
    with pytest.raises(InvalidInput, match="give both or neither"):
        opened_tables(tables, parser.parse_args(given))
