"""Kafka with TLS, passwords and access lists: what each role may do, and what refusals say."""

import gc
import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

from onepiece.cli import main
from onepiece.errors import EventLogUnavailable, InvalidInput
from onepiece.events.acls import ROLES
from onepiece.events.history_fold import HistoryRecipe
from onepiece.events.history_state import HistoryUpdate
from onepiece.events.kafka_acls import grant_role
from onepiece.events.kafka_checkpoints import Checkpoints
from onepiece.events.kafka_clients import new_admin, new_producer
from onepiece.events.kafka_dead_letters import list_dead_letters, replay_dead_letters
from onepiece.events.kafka_follower import LiveHistoryConsumer
from onepiece.events.kafka_history import KafkaHistoryConsumer
from onepiece.events.kafka_live_group import LiveGroupTopic
from onepiece.events.kafka_log import KafkaEventLog
from onepiece.events.kafka_rebuild import rebuild
from onepiece.events.kafka_settings import PREFIX, KafkaSettings
from onepiece.events.kafka_topics import apply_topics
from onepiece.events.log import read_events
from onepiece.events.schema import Click, Erasure, Event, Exposure
from onepiece.simulation.services import HOST, KafkaService, free_ports

pytestmark = [
    pytest.mark.integration,
    # kafka-python leaves the sockets of refused connections to the collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

NOW_MS = 1_500_000_000_000
PASSWORD = "not-to-be-told"
NUM_PARTITIONS = 2


class Cluster:
    """A broker that trusts nobody on its second listener, and one user a role."""

    def __init__(self, broker: KafkaService, secured_port: int, certificates: Path) -> None:
        self.open = KafkaSettings(
            bootstrap_servers=broker.bootstrap_servers,
            num_partitions=NUM_PARTITIONS,
            prefix=f"s-{uuid.uuid4()}",
        )
        """Of the listener on which everybody may do everything, because nobody else reaches it."""
        self._port = secured_port
        self._certificates = certificates

    def settings(self, user: str, password: str = PASSWORD, **changes: object) -> KafkaSettings:
        given = {
            "bootstrap_servers": f"{HOST}:{self._port}",
            "num_partitions": NUM_PARTITIONS,
            "prefix": self.open.prefix,
            "timeout_s": 5.0,
            "session_timeout_s": 6.0,
            "security_protocol": "SASL_SSL",
            "sasl_username": user,
            "sasl_password": password,
            "ssl_ca_file": self._certificates / "ca.pem",
            "ssl_certificate_file": self._certificates / "client.pem",
            "ssl_key_file": self._certificates / "client.key",
        }
        return KafkaSettings.model_validate(given | changes)

    def add_user(self, name: str) -> None:
        mechanism = ScramMechanism.SCRAM_SHA_512
        with closing(new_admin(self.open)) as admin:
            told = admin.alter_user_scram_credentials(
                [UserScramCredentialUpsertion(name, mechanism, PASSWORD)]
            )
        assert told == {name: None}


@pytest.fixture(scope="module")
def cluster(
    kafka_libs: Path, certificates: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    port, secured_port, controller_port = free_ports(3)
    broker = KafkaService(kafka_libs, tmp_path_factory.mktemp("secured"), port)
    server = certificates / "server.both.pem"
    server.write_bytes(
        (certificates / "server.key").read_bytes() + (certificates / "server.pem").read_bytes()
    )
    broker.prepare(
        controller_port=controller_port,
        secured=[
            f"SASL_SSL://{HOST}:{secured_port}",
            "SASL_SSL:SASL_SSL",
            "sasl.enabled.mechanisms=SCRAM-SHA-512",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config="
            "org.apache.kafka.common.security.scram.ScramLoginModule required;",
            "ssl.keystore.type=PEM",
            f"ssl.keystore.location={server}",
            "ssl.truststore.type=PEM",
            f"ssl.truststore.location={certificates / 'ca.pem'}",
            "listener.name.sasl_ssl.ssl.client.auth=required",
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found=false",
            # Whoever is on the plaintext listener, which is the broker's own.
            "super.users=User:ANONYMOUS",
        ],
    )
    try:
        broker.start()
        cluster = Cluster(broker, secured_port, certificates)
        for role in ROLES:
            cluster.add_user(role.name)
        grant_role(cluster.open, "admin", user="admin")
        admin = cluster.settings("admin")
        apply_topics(admin)
        for role in ROLES:
            grant_role(admin, role.name, user=role.name)
        cluster.add_user("nobody")
        yield cluster
    finally:
        broker.kill()


@pytest.fixture(autouse=True)
def collected(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The sockets of refused connections are collected where their warnings are ignored."""
    yield
    caplog.get_records("call").clear()
    gc.collect()


class Store:
    """Keeps the newest histories by user."""

    def __init__(self) -> None:
        self.rows: dict[str, HistoryUpdate] = {}

    def write_histories(self, updates: list[HistoryUpdate]) -> None:
        self.rows |= {update.user_id: update for update in updates}

    def replace_histories(self, updates: list[HistoryUpdate], **gone: object) -> None:
        self.write_histories(updates)


def click(number: int, user: str = "ann") -> Click:
    at_ms = NOW_MS + number
    return Click(
        event_id=f"c{number}", user_id=user, at_ms=at_ms, received_at_ms=at_ms, item_id="milk"
    )


def exposure(number: int) -> Exposure:
    at_ms = NOW_MS + number
    return Exposure.model_validate(
        {"event_id": f"x{number}", "user_id": "ann", "at_ms": at_ms, "received_at_ms": at_ms}
        | {"request_id": "r", "query_id": "q", "store_id": "s", "item_ids": ["milk"]}
    )


def new_consumer(
    settings: KafkaSettings, store: Store | None, group: str = "history", before: str | None = None
) -> KafkaHistoryConsumer:
    def checkpoints(group: str) -> Checkpoints:
        return Checkpoints(settings, monotonic_s=time.monotonic, group=group)

    return KafkaHistoryConsumer(
        settings,
        store,
        checkpoints=checkpoints(group),
        replaces=None if before is None else checkpoints(before),
        store_id=lambda: "" if store is None else "redis",
        category_of={"milk": "dairy"},
        recipe=HistoryRecipe(),
        monotonic_s=time.monotonic,
        now_ms=lambda: NOW_MS,
        checkpoint_interval_s=0.0,
    )


def rebuild_and_follow(settings: KafkaSettings, of_member: KafkaSettings, store: Store) -> str:
    """Rebuilds while a member follows, each as its own user; names the group that is live."""
    with (
        closing(LiveGroupTopic(settings)) as topic,
        closing(
            LiveHistoryConsumer(
                LiveGroupTopic(of_member),
                start=lambda live: new_consumer(of_member, store, live.name, live.before),
                monotonic_s=time.monotonic,
            )
        ) as member,
    ):
        return rebuild(
            settings,
            topic,
            start=lambda group: new_consumer(settings, None, group),
            monotonic_s=time.monotonic,
            pause=lambda _: member.poll(),
            timeout_s=60,
        ).group


def append_as(settings: KafkaSettings, event: Event) -> None:
    with closing(KafkaEventLog.open(settings)) as log:
        log.append([event])


def test_each_role_can_do_its_work_and_no_other(cluster, caplog):
    caplog.set_level(logging.DEBUG)
    append_as(cluster.settings("collector"), click(1))
    append_as(cluster.settings("router"), exposure(1))
    producer = new_producer(cluster.settings("dead-letters"), transactional_id=None)
    producer.close()
    store = Store()
    consumer = new_consumer(cluster.settings("history"), store)
    deadline_s = time.monotonic() + 30
    while "ann" not in store.rows or consumer._is_dirty:
        consumer.poll()
        assert time.monotonic() < deadline_s, "the click was not folded"
    with closing(KafkaEventLog.open(cluster.settings("batch"))) as log:
        read = {event.event_id for event in read_events(log)}
        committed = sum(log.committed("history"))
    with closing(KafkaEventLog.open(cluster.settings("anchors"))) as log:
        assert {event.event_id for event in read_events(log)} == read
    append_as(
        cluster.settings("forget"),
        Erasure(event_id="z", user_id="bob", at_ms=NOW_MS, received_at_ms=NOW_MS),
    )
    consumer.close()
    rebuilt = rebuild_and_follow(cluster.settings("rebuild"), cluster.settings("history"), store)
    with closing(LiveGroupTopic(cluster.settings("forget"))) as topic:
        assert topic.read().name == rebuilt

    assert read == {"c1", "x1"}
    assert committed >= 1
    assert list_dead_letters(cluster.settings("dead-letters")) == []
    assert replay_dead_letters(cluster.settings("dead-letters")).num_sent == 0
    for user, event in (
        ("collector", exposure(2)),
        ("router", click(2)),
        ("batch", click(2)),
        ("history", click(2)),
        ("anchors", click(2)),
        ("forget", click(2)),
    ):
        with pytest.raises(EventLogUnavailable, match="events acls --apply"):
            append_as(cluster.settings(user), event)
    with (
        closing(KafkaEventLog.open(cluster.settings("collector"))) as log,
        pytest.raises(EventLogUnavailable, match=r"'collector'.*events acls --apply"),
    ):
        list(read_events(log))
    with pytest.raises(EventLogUnavailable, match="events acls --apply"):
        new_consumer(cluster.settings("batch"), Store()).poll()
    assert PASSWORD not in caplog.text


def test_a_refusal_says_what_to_do_and_tells_no_password(cluster, certificates, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    (tmp_path / "other.pem").write_bytes((certificates / "client.pem").read_bytes())
    plain = cluster.open.bootstrap_servers
    cases = [
        (cluster.settings("batch", "wrong-" + PASSWORD), "SASL_USERNAME.*its secret"),
        (cluster.settings("stranger"), "SASL_USERNAME.*its secret"),
        (cluster.settings("nobody"), "'nobody'.*events acls --apply"),
        (cluster.settings("batch", ssl_ca_file=tmp_path / "other.pem"), "SSL_CA_FILE"),
        (cluster.settings("batch", ssl_ca_file=None), "CERTIFICATE_VERIFY_FAILED.*SSL_CA_FILE"),
        (cluster.settings("batch", bootstrap_servers=plain), "this listener speaks TLS"),
        (
            cluster.settings("batch", ssl_certificate_file=None, ssl_key_file=None),
            "SSL_CERTIFICATE_FILE",
        ),
    ]

    for settings, said in cases:
        # Long enough that a loaded broker has refused by then; a client tries until it is over.
        hasty = settings.model_copy(update={"timeout_s": 4.0})
        with pytest.raises(EventLogUnavailable, match=said) as told:
            KafkaEventLog.open(hasty)
        cause = told.value.__cause__
        assert PASSWORD not in f"{told.value} {cause!r} {settings!r} {settings} {vars(cause)}"
    with pytest.raises(InvalidInput, match=r"SSL_CA_FILE is .*missing.pem"):
        KafkaEventLog.open(cluster.settings("batch", ssl_ca_file=tmp_path / "missing.pem"))
    assert PASSWORD not in caplog.text


def test_a_command_finds_its_password_in_a_file(
    cluster, certificates, tmp_path, monkeypatch, capsys
):
    (tmp_path / "password").write_text(PASSWORD + "\n")
    variables = {
        "BOOTSTRAP_SERVERS": cluster.settings("admin").bootstrap_servers,
        "PREFIX": cluster.open.prefix,
        "SECURITY_PROTOCOL": "SASL_SSL",
        "SASL_USERNAME": "admin",
        "SASL_PASSWORD_FILE": str(tmp_path / "password"),
        "SSL_CA_FILE": str(certificates / "ca.pem"),
        "SSL_CERTIFICATE_FILE": str(certificates / "client.pem"),
        "SSL_KEY_FILE": str(certificates / "client.key"),
    }
    for name, value in variables.items():
        monkeypatch.setenv(PREFIX + name, value)

    code = main(["events", "acls", "--apply", "batch", "--user", "nobody-else"])

    told = capsys.readouterr()
    assert (code, told.out.split(":")[0]) == (0, "user nobody-else may do what batch does")
    assert PASSWORD not in told.out + told.err
    monkeypatch.setenv(PREFIX + "PASSWORD", PASSWORD)
    assert main(["events", "acls", "--apply", "batch"]) == 2
    told = capsys.readouterr()
    assert f"{PREFIX}PASSWORD" in told.err
    assert PASSWORD not in told.out + told.err
