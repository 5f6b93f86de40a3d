"""RedisStore when Redis restarts, forgets scripts, asks for passwords or is away."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onepiece.cli import main
from onepiece.errors import FeatureStoreUnavailable
from onepiece.events.history import HistoryUpdate, MemoryUpdate
from onepiece.events.interactions import Interactions
from onepiece.features.feast_settings import FeatureStoreSettings, save_settings
from onepiece.features.open_store import open_online_store
from onepiece.features.redis_settings import RedisSettings
from onepiece.features.redis_store import READER_ACL, WRITER_ACL, RedisStore
from onepiece.features.schema import MAX_COUNT, is_newer, version_at
from onepiece.features.store import SignalKey

pytestmark = pytest.mark.integration

T0 = 1_500_000_000_000
KEY = SignalKey("user", "q", "milk", T0)
PASSWORD = 'not, = to be "told'


def update(*items: str, at_ms: int = T0, num_events: int = 1, user_id: str = "user"):
    events = Interactions(items, (1,) * len(items), (T0,) * len(items))
    memories = {"milk": MemoryUpdate(at_ms, events, num_events=num_events)}
    return HistoryUpdate(user_id, at_ms, events, memories, num_events=num_events)


def store_at(port: int, **options: object) -> RedisStore:
    return RedisStore(RedisSettings(address=f"127.0.0.1:{port}", **options), project="onepiece")


@settings(
    deadline=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    stored_ms=st.integers(0, 2**43 - 1),
    shift_ms=st.sampled_from((0, 0, 0, 1, -1, 2**9, -(2**9), 2**30)),
    counts=st.tuples(
        *[st.integers(0, 3) | st.integers(MAX_COUNT - 2, MAX_COUNT + 1) | st.integers(0, MAX_COUNT)]
        * 2
    ),
)
def test_redis_orders_versions_as_the_feature_table_says(redis_server, stored_ms, shift_ms, counts):
    at_ms = min(max(stored_ms + shift_ms, 0), 2**43 - 1)
    store = RedisStore(RedisSettings(address=redis_server), project="onepiece")
    store.delete_user("user", ["milk"])

    store.write_histories([update("stored", at_ms=stored_ms, num_events=counts[0])])
    store.write_histories([update("written", at_ms=at_ms, num_events=counts[1])])

    wins = is_newer(version_at(at_ms, counts[1]), stored=version_at(stored_ms, counts[0]))
    found = store.read([KEY])[0]
    assert found.recent.item_ids == found.memory.item_ids == ("written" if wins else "stored",)
    store.close()


def test_a_server_that_forgot_the_script_is_given_it_again(redis_server):
    store = RedisStore(RedisSettings(address=redis_server), project="onepiece")
    store.write_histories([update("a")])
    with redis.Redis(port=int(redis_server.partition(":")[2])) as client:
        client.script_flush()

    store.write_histories([update("a", "b", num_events=2)])

    assert store.read([KEY])[0].recent.item_ids == ("a", "b")
    store.close()


def test_a_restarted_redis_is_found_again_under_another_name(start_redis, free_port):
    process = start_redis(free_port)
    store = store_at(free_port)
    store.write_histories([update("a")])
    before = store.server_id()

    process.terminate()
    process.wait(timeout=10)
    with pytest.raises(FeatureStoreUnavailable, match=f"redis at 127.0.0.1:{free_port}"):
        store.read([KEY])
    with pytest.raises(FeatureStoreUnavailable):
        store.write_histories([update("a")])
    with pytest.raises(FeatureStoreUnavailable):
        store.server_id()
    with pytest.raises(FeatureStoreUnavailable):
        store.delete_user("user", [])
    start_redis(free_port)

    assert store.server_id() != before
    assert store.read([KEY])[0].recent.item_ids == ()
    store.write_histories([update("a")])
    assert store.read([KEY])[0].recent.item_ids == ("a",)
    store.close()


def test_a_redis_that_hangs_is_unavailable_within_the_timeout(start_redis, free_port):
    process = start_redis(free_port)
    store = store_at(free_port, timeout_s=0.2)
    store.read([KEY])

    process.send_signal(signal.SIGSTOP)
    start_s = time.monotonic()
    try:
        with pytest.raises(FeatureStoreUnavailable, match=r"[Tt]ime"):
            store.read([KEY])
        # Above the timeout by a multiple: it is asked once, and the machine may be busy.
        assert time.monotonic() - start_s < 0.8
    finally:
        process.send_signal(signal.SIGCONT)

    assert store.read([KEY])[0].recent.item_ids == ()
    store.close()


def with_users(port: int, certificates: Path) -> tuple[str, ...]:
    """Options of a Redis that speaks TLS only, knows its clients, and has two users."""
    return (
        *("--tls-port", str(port), "--port", "0"),
        *("--tls-cert-file", str(certificates / "server.pem")),
        *("--tls-key-file", str(certificates / "server.key")),
        *("--tls-ca-cert-file", str(certificates / "ca.pem")),
        *("--user", "default", "off"),
        *("--user", "admin", "on", ">admin", "~*", "+@all"),
        *("--user", "reader", "on", f">{PASSWORD}", *READER_ACL.split()),
        *("--user", "writer", "on", f">{PASSWORD}", *WRITER_ACL.split()),
    )


@pytest.fixture
def protected(
    start_redis: Callable[..., object], free_port: int, certificates: Path, tmp_path: Path
) -> Callable[[str], RedisSettings]:
    """Settings for a user of a Redis with TLS and an access control list."""
    start_redis(free_port, *with_users(free_port, certificates))
    (tmp_path / "password").write_text(PASSWORD + "\n")

    def settings_of(username: str) -> RedisSettings:
        return RedisSettings(
            address=f"127.0.0.1:{free_port}",
            username=username,
            password_file=tmp_path / "password",
            is_tls=True,
            ca_file=certificates / "ca.pem",
            cert_file=certificates / "client.pem",
            key_file=certificates / "client.key",
        )

    return settings_of


def test_least_privilege_is_enough_over_tls(protected):
    writer = RedisStore(protected("writer"), project="onepiece")
    reader = RedisStore(protected("reader"), project="onepiece")

    writer.write_histories([update("a")])

    assert reader.read([KEY]) == writer.read([KEY])
    assert reader.read([KEY])[0].recent.item_ids == ("a",)
    assert reader.server_id() == writer.server_id()
    with pytest.raises(FeatureStoreUnavailable, match="permission"):
        reader.write_histories([update("a", "b", num_events=2)])
    with pytest.raises(FeatureStoreUnavailable, match="permission"):
        reader.delete_user("user", [])
    writer.delete_user("user", ["milk"])
    assert reader.read([KEY])[0].recent.item_ids == ()
    writer.close()
    reader.close()


def test_a_user_of_one_project_cannot_touch_another(protected):
    store = RedisStore(protected("writer"), project="other")

    with pytest.raises(FeatureStoreUnavailable, match="permission") as told:
        store.read([KEY])
    with pytest.raises(FeatureStoreUnavailable, match="permission"):
        store.write_histories([update("a")])

    assert "user_id" not in str(told.value)
    store.close()


def test_who_is_not_trusted_or_trusts_another_is_refused(protected, tmp_path):
    settings = protected("reader")
    (tmp_path / "wrong").write_text("wrong\n")
    changes = [
        {"password_file": tmp_path / "wrong"},
        {"password_file": tmp_path / "missing"},
        {"cert_file": None, "key_file": None},
        {"ca_file": None},
        {"is_tls": False, "ca_file": None, "cert_file": None, "key_file": None},
    ]

    for change in changes:
        store = RedisStore(settings.model_copy(update=change), project="onepiece")
        with pytest.raises(FeatureStoreUnavailable) as told:
            store.read([KEY])
        assert PASSWORD not in str(told.value)
        store.close()


def test_a_new_password_is_read_when_a_connection_is_made(protected, tmp_path, certificates):
    settings = protected("reader")
    store = RedisStore(settings, project="onepiece")
    store.read([KEY])
    options = settings.options() | {"username": "admin", "password": "admin"}
    with redis.Redis(**options) as admin:
        admin.execute_command("ACL", "SETUSER", "reader", "resetpass", ">changed")
        (tmp_path / "password").write_text("changed\n")
        admin.client_kill_filter(skipme=True)

    assert store.read([KEY])[0].recent.item_ids == ()
    store.close()


def test_no_secret_is_in_settings_files_or_text(protected, tmp_path):
    settings = FeatureStoreSettings(folder=tmp_path, online="redis", redis=protected("reader"))

    save_settings(settings)

    assert PASSWORD.encode() not in (tmp_path / "store.json").read_bytes()
    assert PASSWORD not in repr(settings) + str(settings.redis.options())


def test_a_store_on_redis_is_opened_without_feast(redis_server, tmp_path):
    save_settings(
        FeatureStoreSettings(
            folder=tmp_path, online="redis", redis=RedisSettings(address=redis_server)
        )
    )
    code = (
        "import sys; from pathlib import Path\n"
        "from onepiece.features.open_store import open_online_store\n"
        f"store = open_online_store(Path({str(tmp_path)!r}))\n"
        "print(type(store).__name__, sorted({'feast', 'torch', 'pandas'} & set(sys.modules)))"
    )

    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout

    assert told == "RedisStore []\n"


def test_a_store_applied_with_tls_and_a_user_is_opened_by_its_folder(
    protected, repository, tmp_path, capsys
):
    settings = protected("writer")
    options = ["--redis", settings.address, "--redis-tls", "--redis-username", "writer"]
    for name in ("password", "ca", "cert", "key"):
        options += [f"--redis-{name}-file", str(getattr(settings, f"{name}_file"))]
    command = ["features", "apply", "--repo", str(repository / "feature_repo"), *options]

    code = main([*command, "--store", str(tmp_path / "store"), "--json"])

    told = capsys.readouterr()
    assert (code, json.loads(told.out)["online"]) == (0, "redis")
    assert PASSWORD not in told.out + told.err
    with closing(open_online_store(tmp_path / "store")) as store:
        store.write_histories([update("a")])
        assert store.read([KEY])[0].recent.item_ids == ("a",)
