"""The fault suite: events flow while what carries them is killed, and nothing may be missing.

A client sends events to the collector, which appends them to a real Kafka; history consumers fold
them into a real Redis. Meanwhile collector, broker, Redis and consumers are killed with SIGKILL,
consumers also at chosen points. At the end every acknowledged event must be in the log, and every
history in Redis must be the plain fold of the events sent, each counted once.
"""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from onepiece.datasets.catalogue_file import write_catalogue
from onepiece.errors import FeatureStoreUnavailable, OnePieceError
from onepiece.events.collector_answers import Status
from onepiece.events.collector_client import CollectorClient
from onepiece.events.kafka_clients import kafka_partition_of
from onepiece.events.kafka_settings import PREFIX, KafkaSettings
from onepiece.events.kafka_topics import create_topics
from onepiece.events.schema import Click, Event
from onepiece.features.feast_settings import FeatureStoreSettings, save_settings
from onepiece.features.open_store import open_online_store
from onepiece.features.store import SignalKey
from onepiece.simulation.fault_check import ids_in_log, wrong_histories
from onepiece.simulation.fault_consumer import POINTS
from onepiece.simulation.fault_events import shop_catalogue, shop_events
from onepiece.simulation.fault_result import FaultRecipe, FaultResult, Kill, Victim
from onepiece.simulation.run_folder import RunFolder
from onepiece.simulation.services import free_ports, start_services

BATCH_EVENTS = 500
"""Events of one request to the collector."""
EVENTS_PER_SHOP_S = 1_000.0
"""Events of one second of the shop's time, however fast they are sent."""


class FaultFailed(OnePieceError):
    """A run did not get to its end."""


@dataclass
class _Sender:
    """Sends events to the collector at a bounded rate, again until they are acknowledged."""

    url: str
    max_rate_per_s: float
    num_sent: int = 0
    acknowledged: set[str] = field(default_factory=set)

    def send(self, events: Iterator[Event]) -> None:
        """Sends all; returns when every one is acknowledged."""
        started_s = time.monotonic()
        with CollectorClient(
            self.url, sleep=time.sleep, random=random.random, monotonic_s=time.monotonic
        ) as client:
            while batch := list(islice(events, BATCH_EVENTS)):
                results = client.append([_as_sent(event) for event in batch])
                self.acknowledged.update(
                    event.event_id
                    for event, result in zip(batch, results, strict=True)
                    if result.status in (Status.ACCEPTED, Status.DUPLICATE)
                )
                self.num_sent += len(batch)
                ahead_s = self.num_sent / self.max_rate_per_s - (time.monotonic() - started_s)
                if ahead_s > 0:
                    time.sleep(ahead_s)


def _as_sent(event: Event) -> dict[str, object]:
    """Gives an event as a service sends it: the collector says when it was received."""
    return event.model_dump(mode="json", exclude_none=True, exclude={"received_at_ms"})


class FaultRun:
    """One run, in the folder of `run`."""

    def __init__(
        self, recipe: FaultRecipe, *, run: RunFolder, libs: Path, on_log: Callable[[str], None]
    ) -> None:
        """Starts Kafka and Redis; `run` ends them.

        Args:
            recipe: What flows and what is killed.
            run: Where everything is written and by whose guard processes end.
            libs: Where Kafka's jars are kept.
            on_log: Shows one line of what happens.
        """
        self._recipe = recipe
        self._run = run
        self._on_log = on_log
        self._http_port, self._grpc_port = free_ports(2)
        self._services = start_services(run.path, libs=libs)
        run.adopt(self._services.kafka.process)
        run.adopt(self._services.redis.process)
        self._settings = KafkaSettings(
            bootstrap_servers=self._services.kafka.bootstrap_servers,
            num_partitions=recipe.num_partitions,
            session_timeout_s=6.0,
            transaction_timeout_s=5.0,
        )
        self._collector: subprocess.Popen[str] | None = None
        # The shop's clock: it ends before the collector's, which refuses what is yet to happen.
        shop_s = recipe.num_events / EVENTS_PER_SHOP_S + 3_600.0
        self._start_ms = int((time.time() - shop_s) * 1_000)
        self._consumers: list[subprocess.Popen[str] | None] = [None] * recipe.num_consumers
        self._random = random.Random(recipe.seed)  # noqa: S311 - a seeded draw
        self._num_probes = 0
        self._catalogue = shop_catalogue()
        self._started_s = time.monotonic()

    def run(self) -> FaultResult:
        """Starts everything, sends, kills, waits and compares."""
        try:
            return self._run_all()
        finally:
            self._services.kill()

    def _run_all(self) -> FaultResult:
        recipe = self._recipe
        self._start_clients()
        sender = _Sender(self._url, recipe.max_rate_per_s)
        sending = threading.Thread(target=sender.send, args=(self._events(),), daemon=True)
        sending.start()
        kills = []
        marks = sorted(
            self._random.sample(range(1, recipe.num_events), min(recipe.num_kills, 10_000))
        )
        for mark in marks:
            while sender.num_sent < mark and sending.is_alive():
                time.sleep(0.01)
            kills.append(self._kill(sender.num_sent))
        sending.join()
        self._say(f"all {sender.num_sent:,} events are acknowledged")
        self._wait_for_probes("the end")
        wrong, num_histories = wrong_histories(
            self._events(),
            self._store,
            category_of=self._catalogue.category_of,
            patience_s=recipe.max_recovery_s,
        )
        in_log = ids_in_log(self._settings)
        distinct = {event.event_id for event in self._events()}
        return FaultResult(
            seed=recipe.seed,
            num_sent=sender.num_sent,
            num_acknowledged=len(sender.acknowledged),
            num_distinct=len(distinct),
            num_lost=len(sender.acknowledged - in_log),
            num_histories=num_histories,
            num_wrong=len(wrong),
            examples=tuple(wrong[:5]),
            seconds=time.monotonic() - self._started_s,
            kills=tuple(kills),
        )

    def _events(self) -> Iterator[Event]:
        recipe = self._recipe
        return shop_events(
            recipe.num_events,
            num_users=recipe.num_users,
            seed=recipe.seed,
            rate_per_s=EVENTS_PER_SHOP_S,
            start_ms=self._start_ms,
        )

    def _start_clients(self) -> None:
        create_topics(self._settings)
        write_catalogue(self._catalogue, self._run.path / "catalogue.parquet")
        store = FeatureStoreSettings(
            folder=self._store,
            online="redis",
            redis=self._services.redis_settings,
        )
        store.folder.mkdir()
        save_settings(store)
        self._start_collector()
        for number in range(self._recipe.num_consumers):
            self._start_consumer(number)
        self._wait_for_probes("the start")

    @property
    def _store(self) -> Path:
        return self._run.path / "store"

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self._http_port}"

    def _start_collector(self) -> None:
        if self._collector is not None:
            self._run.stop(self._collector)
        self._collector = self._run.start(
            [
                *(sys.executable, "-m", "onepiece.cli", "events", "collect"),
                *("--http-port", str(self._http_port), "--grpc-port", str(self._grpc_port)),
            ],
            log_name="collector",
            environment={
                **os.environ,
                f"{PREFIX}BOOTSTRAP_SERVERS": self._settings.bootstrap_servers,
                f"{PREFIX}NUM_PARTITIONS": str(self._settings.num_partitions),
            },
        )

    def _start_consumer(self, number: int) -> None:
        path = self._run.path
        self._consumers[number] = self._run.start(
            [
                sys.executable,
                "-m",
                "onepiece.simulation.fault_consumer",
                f"--kafka={self._settings.model_dump_json()}",
                f"--store={self._store}",
                f"--catalogue={path / 'catalogue.parquet'}",
                f"--note={self._note(number)}",
                f"--checkpoint-interval-s={self._recipe.checkpoint_interval_s}",
            ],
            log_name=f"consumer-{number}",
        )

    def _kill(self, at_event: int) -> Kill:
        """Kills something, brings it back, and measures until all is well again."""
        victims: tuple[Victim, ...] = ("broker", "redis", "collector", *("consumer",) * 3)
        victim = self._random.choice(victims)
        point = ""
        if victim == "consumer":
            point = self._random.choice(("", *POINTS))
        killed_s = time.monotonic()
        if victim == "consumer":
            killed_s = self._kill_consumer(point)
        elif victim == "collector":
            assert self._collector is not None  # noqa: S101 - it was started
            self._collector.kill()
            self._collector.wait()
            self._start_collector()
        else:
            service = self._services.kafka if victim == "broker" else self._services.redis
            service.kill()
            time.sleep(self._random.uniform(0.2, 2.0))
            service.start()
            self._run.adopt(service.process)
        self._wait_for_probes(f"the kill of {victim} {point}")
        kill = Kill(at_event, victim, point, time.monotonic() - killed_s)
        self._say(
            f"{at_event:>9,} events: killed {victim} {point or 'at random'}, "
            f"well after {kill.recovery_s:.1f} s"
        )
        self._revive_consumers()
        return kill

    def _kill_consumer(self, point: str) -> float:
        """Kills a member, at a point if one is given, and returns when it died.

        It is brought back only when the others have taken over, if there are others.
        """
        number = self._random.randrange(self._recipe.num_consumers)
        victim = self._consumers[number]
        assert victim is not None  # noqa: S101 - revived after each kill
        if not point:
            victim.kill()
        else:
            self._note(number).write_text(point)
            if point == "rebalance":
                # A member that starts is given partitions, and dies as it takes them over.
                victim.kill()
                victim.wait()
                self._start_consumer(number)
                victim = self._consumers[number]
                assert victim is not None  # noqa: S101 - just started
            deadline_s = time.monotonic() + self._recipe.max_recovery_s
            while victim.poll() is None and time.monotonic() < deadline_s:
                # New events make sure that there is something to die in.
                self._send_probe()
                time.sleep(0.2)
            self._note(number).unlink(missing_ok=True)
            victim.kill()
        victim.wait()
        died_s = time.monotonic()
        if all(one is None or one.poll() is not None for one in self._consumers):
            self._revive_consumers()
        return died_s

    def _revive_consumers(self) -> None:
        for number, consumer in enumerate(self._consumers):
            if consumer is not None and consumer.poll() is not None:
                self._run.stop(consumer)
                self._start_consumer(number)

    def _note(self, number: int) -> Path:
        return self._run.path / f"note-{number}"

    def _send_probe(self) -> list[str]:
        """Sends one click of a new user in every partition; returns the users."""
        self._num_probes += 1
        users: dict[int, str] = {}
        suffix = 0
        while len(users) < self._settings.num_partitions:
            user = f"probe-{self._num_probes}-{suffix}"
            users.setdefault(kafka_partition_of(user, self._settings.num_partitions), user)
            suffix += 1
        sender = _Sender(self._url, 1e6)
        sender.send(
            Click(
                event_id=f"of-{user}",
                user_id=user,
                at_ms=self._start_ms,
                received_at_ms=self._start_ms,
                item_id=self._catalogue.item_ids[0],
            )
            for user in users.values()
        )
        return list(users.values())

    def _wait_for_probes(self, what: str) -> None:
        """Waits until a new event of every partition is in the store; revives dead consumers."""
        users = self._send_probe()
        deadline_s = time.monotonic() + self._recipe.max_recovery_s
        while True:
            try:
                store = open_online_store(self._store)
                keys = [SignalKey(user, "-", "-", self._start_ms) for user in users]
                try:
                    if all(len(signals.recent) for signals in store.read(keys)):
                        return
                finally:
                    store.close()
            except FeatureStoreUnavailable:
                pass
            if time.monotonic() > deadline_s:
                raise FaultFailed(
                    f"no new history in {self._recipe.max_recovery_s:g} s after {what}; the logs "
                    f"are in {self._run.path}"
                )
            if all(one is None or one.poll() is not None for one in self._consumers):
                self._revive_consumers()
            time.sleep(0.02)

    def _say(self, text: str) -> None:
        self._on_log(f"{time.monotonic() - self._started_s:7.1f} s  {text}")
