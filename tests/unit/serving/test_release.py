"""A release: its parts fit, it never changes, and it holds no address."""

import argparse
import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from onepiece.errors import BundleCorrupt, InvalidInput, NotFound, OutputExists
from onepiece.features.feast_settings import FeatureStoreSettings, save_settings
from onepiece.features.redis_settings import RedisSettings, redis_settings
from onepiece.serving.paths import ServingPaths
from onepiece.serving.release import check_release, check_store_of_release
from onepiece.serving.release_writing import write_release
from onepiece.serving.source_options import add_source_options, paths_of

SECRET_PLACE = "redis.example:6390"


@pytest.fixture
def redis_store(tmp_path: Path) -> Path:
    """A store's folder as `features apply` leaves it, on a Redis that is not there."""
    folder = tmp_path / "redis-store"
    folder.mkdir()
    redis = RedisSettings(address=SECRET_PLACE)
    save_settings(FeatureStoreSettings(folder=folder, online="redis", redis=redis, project="shop"))
    return folder


@pytest.fixture
def make(world, tmp_path):
    def make(name: str = "release", **changes: object) -> Path:
        given = {
            "bundle": world.folder / "bundle",
            "index": world.folder / "index",
            "item_tables": world.folder / "item-tables",
        }
        write_release(tmp_path / name, **(given | changes))
        return tmp_path / name

    return make


def test_a_release_is_named_by_what_is_in_it(make, world):
    one, same, other = make("one"), make("same"), make("other", recipe=recipe(world.folder))

    assert check_release(one) == check_release(same)
    assert check_release(one).bundle_version == world.bundle.version
    assert check_release(one).ranking_bundle_version == world.bundle.version
    assert check_release(one).store is None
    assert check_release(other).version != check_release(one).version
    assert ServingPaths.of_release(other).recipe == other / "serving.yaml"


def recipe(folder: Path) -> Path:
    path = folder / "serving.yaml"
    path.write_text("num_candidates: 7\n")
    return path


def test_a_release_may_be_moved(make, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.move(make(), moved)

    assert check_release(moved).sha256


@pytest.mark.parametrize("part", ["bundle/weights.safetensors", "index/index.faiss"])
def test_a_changed_byte_is_found(make, part):
    release = make()
    payload = bytearray((release / part).read_bytes())
    payload[-1] ^= 1
    (release / part).write_bytes(payload)

    with pytest.raises(BundleCorrupt, match="SHA-256"):
        check_release(release)


def test_a_missing_file_is_found(make):
    release = make()
    next((release / "item_tables").iterdir()).unlink()

    with pytest.raises(BundleCorrupt, match="is missing"):
        check_release(release)


def test_a_changed_manifest_is_found(make):
    release = make()
    manifest = json.loads((release / "release.json").read_text())
    del manifest["sha256"]["bundle/weights.safetensors"]
    (release / "release.json").write_text(json.dumps(manifest))

    with pytest.raises(BundleCorrupt, match="was changed"):
        check_release(release)


def test_a_folder_without_a_manifest_is_no_release(tmp_path):
    with pytest.raises(NotFound, match="serving release"):
        check_release(tmp_path)


def test_parts_that_do_not_fit_are_refused_and_nothing_is_left(make, world, world_module, tmp_path):
    other = tmp_path / "other-bundle"
    world_module.make_bundle(other, world_module.make_catalogue(()), seed=1)

    with pytest.raises(InvalidInput, match="was built from bundle"):
        make("release", bundle=other)

    assert not (tmp_path / "release").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["other-bundle"]


def test_a_release_is_never_overwritten(make):
    make()

    with pytest.raises(OutputExists):
        make()


def test_no_address_is_in_a_release(make, redis_store):
    release = make(store=redis_store)

    assert check_release(release).store == "redis"
    assert [path.name for path in (release / "store").iterdir()] == ["store.json"]
    assert SECRET_PLACE not in (release / "store/store.json").read_text()
    assert json.loads((release / "store/store.json").read_text())["project"] == "shop"


def test_a_server_of_a_release_on_redis_must_be_told_where_that_is(make, redis_store):
    store = make(store=redis_store) / "store"

    with pytest.raises(InvalidInput, match="ONEPIECE_REDIS_ADDRESS"):
        check_store_of_release(store, redis_settings({"PATH": "/bin", "ONEPIECE_REDIS": "x:1"}))

    check_store_of_release(store, redis_settings({"ONEPIECE_REDIS_ADDRESS": "localhost:1"}))


def test_a_snapshot_of_a_store_in_sqlite_holds_what_is_still_in_its_write_ahead_log(make, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    save_settings(FeatureStoreSettings(folder=store))
    (store / "registry.db").write_bytes(b"registry")
    writing = sqlite3.connect(store / "online.db")
    writing.execute("PRAGMA journal_mode=WAL")
    writing.execute("CREATE TABLE rows (value)")
    writing.execute("INSERT INTO rows VALUES ('new')")
    writing.commit()
    assert (store / "online.db-wal").stat().st_size > 0

    release = make(store=store)

    writing.close()
    assert sorted(path.name for path in (release / "store").iterdir()) == [
        "online.db",
        "registry.db",
        "store.json",
    ]
    # As from a volume that cannot be written to: no second file may be needed.
    reading = sqlite3.connect(f"file:{release}/store/online.db?immutable=1", uri=True)
    assert reading.execute("SELECT value FROM rows").fetchall() == [("new",)]
    reading.close()
    # Bytes 18 and 19 of SQLite's header: 2 would be a write-ahead log.
    assert (release / "store/online.db").read_bytes()[18:20] == b"\x01\x01"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--release a --bundle b", "--bundle was given beside --release"),
        ("--release a --recipe b", "--recipe was given beside --release"),
        ("--bundle a --index b --item-tables c", "--store is missing"),
        ("", "--bundle is missing; give --release DIR"),
    ],
)
def test_a_release_or_its_parts_are_given_not_both(words, said):
    with pytest.raises(InvalidInput, match=said):
        paths_of(parsed(words))


def test_a_store_beside_a_release_takes_the_place_of_the_one_in_it(make, tmp_path):
    release = make()

    assert paths_of(parsed(f"--release {release}")).store == release / "store"
    assert paths_of(parsed(f"--release {release} --store {tmp_path}")).store == tmp_path


def parsed(words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_source_options(parser)
    return parser.parse_args(words.split())
