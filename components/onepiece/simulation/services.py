"""A real Kafka and a real Redis on this machine: for the demo, the tests and the fault runs.

They listen on loopback only, and keep everything in the folder they are given. For trying out:
one broker, one copy of each partition.
"""

import base64
import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path

import redis

from onepiece.errors import EventLogUnavailable, NotFound, Unavailable
from onepiece.events.kafka_settings import KafkaSettings
from onepiece.features.redis_settings import RedisSettings

HOST = "127.0.0.1"
KAFKA_JAR = "kafka_2.13-4.4.0.jar"
"""Kafka's own jar among those that the pom fetches."""
FETCH_TIMEOUT_S = 280.0
"""Longest time for Maven to fetch 56 MB; a fetch takes 20 s."""
START_TIMEOUT_S = 90.0
"""Longest time for a service to answer; Kafka takes 3 to 17 s, by the machine's load."""
DURABLE = ("--appendonly", "yes", "--save", "")
"""Redis keeps a log of its writes."""
VOLATILE = ("--appendonly", "no", "--save", "")
"""Redis keeps nothing on disk."""
_POLL_S = 0.05
"""Pause between two looks at a service that starts."""
_JVM = ("-Xms256m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_LOGGING = """\
status=error
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d %p %c %m%n
rootLogger.level=warn
rootLogger.appenderRef.console.ref=console
"""
_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
listeners={listeners},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners={listeners}
listener.security.protocol.map={protocols},CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={folder}/data
auto.create.topics.enable=false
num.partitions=8
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
"""


@dataclass
class KafkaService:
    """One broker that is its own controller, in a process of its own."""

    libs: Path
    """Kafka's jars, as `fetch_kafka` leaves them."""
    folder: Path
    """Of its data, configuration and log; made by `prepare`."""
    port: int
    """Of the plaintext listener."""
    process: "subprocess.Popen[bytes] | None" = field(default=None)

    @property
    def bootstrap_servers(self) -> str:
        """Where clients ask first."""
        return f"{HOST}:{self.port}"

    def prepare(self, *, controller_port: int, secured: Sequence[str] = ()) -> None:
        """Writes the configuration and formats the data folder; once.

        Args:
            controller_port: Of the broker's talk with itself.
            secured: Further lines of server.properties; the first two are the listener, such as
                `SASL_SSL://127.0.0.1:9094`, and its entry in the protocol map.
        """
        listeners, protocols = f"PLAINTEXT://{self.bootstrap_servers}", "PLAINTEXT:PLAINTEXT"
        if secured:
            listeners, protocols = f"{listeners},{secured[0]}", f"{protocols},{secured[1]}"
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "log4j2.properties").write_text(_LOGGING)
        text = _PROPERTIES.format(
            controller_port=controller_port,
            listeners=listeners,
            protocols=protocols,
            folder=self.folder.resolve(),
        )
        self._properties.write_text("\n".join([text, *secured[2:], ""]))
        cluster_id = "A" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
        command = self._java("kafka.tools.StorageTool", "format", "-t", cluster_id)
        command += ["-c", str(self._properties), "--standalone"]
        subprocess.run(command, check=True, capture_output=True, timeout=START_TIMEOUT_S)  # noqa: S603

    def start(self) -> None:
        """Starts the broker and returns once it answers.

        Raises:
            Unavailable: It ended, or did not answer in time; shows the end of its log.
        """
        self.process = _started(
            "Kafka",
            self._java("kafka.Kafka", str(self._properties)),
            log=self.folder / "broker.log",
            is_answering=lambda: is_listening(self.port) and self._answers(),
        )

    def kill(self) -> None:
        """Ends the broker at once, as a power cut would."""
        _kill(self.process)
        self.process = None

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def _java(self, *arguments: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={self.folder.resolve()}/log4j2.properties"
        return ["java", *_JVM, logging, "-cp", f"{self.libs}/*", *arguments]

    def _answers(self) -> bool:
        """Says whether the broker answers; its port opens up to half a second before."""
        # Only who starts a broker pays for the client.
        from onepiece.events.kafka_clients import explained, new_admin

        settings = KafkaSettings(bootstrap_servers=self.bootstrap_servers, timeout_s=5.0)
        try:
            with explained(settings, "reach the broker"):
                admin = new_admin(settings)
                admin.describe_cluster()
                admin.close()
        except EventLogUnavailable:
            return False
        return True


@dataclass
class RedisService:
    """One Redis that keeps a log of its writes, in a process of its own."""

    folder: Path
    """Of its data and log."""
    port: int
    arguments: tuple[str, ...] = DURABLE
    """How it keeps what it holds: `DURABLE`, or `VOLATILE`."""
    process: "subprocess.Popen[bytes] | None" = field(default=None)

    @property
    def address(self) -> str:
        """Where clients connect, as host:port."""
        return f"{HOST}:{self.port}"

    def start(self) -> None:
        """Starts the server and returns once it answers.

        Raises:
            NotFound: redis-server is not installed.
            Unavailable: It ended, or did not answer in time; shows the end of its log.
        """
        program = find_program("redis-server", package="redis-server")
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [program, "--port", str(self.port), "--bind", HOST, "--dir", str(self.folder)]
        self.process = _started(
            "Redis",
            [*command, *self.arguments],
            log=self.folder / "redis.log",
            is_answering=self._answers,
        )

    def kill(self) -> None:
        """Ends the server at once."""
        _kill(self.process)
        self.process = None

    def _answers(self) -> bool:
        client = redis.Redis(HOST, self.port, socket_timeout=1.0)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()


@dataclass(frozen=True)
class Services:
    """Both, as one run has them."""

    kafka: KafkaService
    redis: RedisService

    def start(self) -> None:
        """Starts both, or leaves neither.

        Raises:
            NotFound: redis-server is not installed.
            Unavailable: One of them did not answer.
        """
        try:
            self.kafka.start()
            self.redis.start()
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """Ends both at once."""
        self.kafka.kill()
        self.redis.kill()

    def kafka_settings(self, *, num_partitions: int) -> KafkaSettings:
        """Says where Kafka is."""
        return KafkaSettings(
            bootstrap_servers=self.kafka.bootstrap_servers, num_partitions=num_partitions
        )

    @property
    def redis_settings(self) -> RedisSettings:
        """Says where Redis is."""
        return RedisSettings(address=self.redis.address)


def start_services(
    folder: Path, *, libs: Path, redis_arguments: tuple[str, ...] = DURABLE
) -> Services:
    """Starts both on free ports, with everything they keep in a new folder.

    Raises:
        NotFound: Java, Maven or redis-server is not installed.
        Unavailable: Kafka could not be fetched, or one of them did not answer.
    """
    kafka_port, controller_port, redis_port = free_ports(3)
    kafka = KafkaService(fetch_kafka(libs), folder / "kafka", kafka_port)
    services = Services(kafka, RedisService(folder / "redis", redis_port, redis_arguments))
    kafka.prepare(controller_port=controller_port)
    services.start()
    return services


def fetch_kafka(libs: Path) -> Path:
    """Fetches Kafka's jars from Maven Central into a folder, unless they are there.

    Raises:
        NotFound: Java or Maven is not installed.
        Unavailable: Maven could not fetch them.
    """
    find_program("java", package="openjdk-17-jre-headless")
    if (libs / KAFKA_JAR).exists():
        return libs
    maven = find_program("mvn", package="maven")
    draft = libs.with_name(f"{libs.name}-{os.getpid()}")
    with as_file(files("onepiece.simulation") / "kafka_pom.xml") as pom:
        command = [maven, "-B", "-q", "-f", str(pom), "dependency:copy-dependencies"]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={draft.resolve()}"]
        fetched = subprocess.run(  # noqa: S603 - our own command line, no shell
            command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False
        )
    if fetched.returncode:
        shutil.rmtree(draft, ignore_errors=True)
        raise Unavailable(f"Maven could not fetch Kafka: {fetched.stdout[-500:]}")
    shutil.rmtree(libs, ignore_errors=True)
    draft.rename(libs)
    return libs


def find_program(name: str, *, package: str) -> str:
    """Finds a program.

    Raises:
        NotFound: It is not installed; names the package that has it.
    """
    program = shutil.which(name)
    if program is None:
        raise NotFound(f"{name} is not installed; install it, such as with apt-get: {package}")
    return program


def free_ports(count: int) -> list[int]:
    """Finds ports of loopback that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for opened in sockets:
        opened.bind((HOST, 0))
    ports: list[int] = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def is_listening(port: int) -> bool:
    """Says whether anybody listens on a port of loopback."""
    try:
        socket.create_connection((HOST, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _started(
    name: str, command: Sequence[str], *, log: Path, is_answering: Callable[[], bool]
) -> "subprocess.Popen[bytes]":
    """Starts a service that leads its own group, and returns once it answers.

    Raises:
        Unavailable: It ended, or did not answer in time; shows the end of its log.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command line, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline_s and process.poll() is None:
            if is_answering():
                return process
            time.sleep(_POLL_S)
    except BaseException:
        _kill(process)
        raise
    _kill(process)
    tail = log.read_text(errors="replace")[-2_000:]
    raise Unavailable(f"{name} did not answer in {START_TIMEOUT_S:g} s; its log ends:\n{tail}")


def _kill(process: "subprocess.Popen[bytes] | None") -> None:
    if process is not None and process.poll() is None:
        process.kill()
        process.wait()
