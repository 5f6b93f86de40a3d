"""A real Kafka broker for the contract tests: jars from Maven Central, one broker a session."""

import base64
import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

LOGGING = """\
status=error
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d %p %c %m%n
rootLogger.level=warn
rootLogger.appenderRef.console.ref=console
"""
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={folder}/data
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
JVM = ("-Xms256m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
START_TIMEOUT_S = 60.0


@dataclass
class Broker:
    """One Kafka broker in a process of its own."""

    libs: Path
    folder: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = field(default=None)

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts the broker and returns once it answers."""
        with (self.folder / "broker.log").open("ab") as output:
            self.process = subprocess.Popen(
                [
                    "java",
                    *JVM,
                    f"-Dlog4j2.configurationFile={self.folder}/log4j2.properties",
                    "-cp",
                    f"{self.libs}/*",
                    "kafka.Kafka",
                    f"{self.folder}/server.properties",
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._wait_until_ready()

    def kill(self) -> None:
        """Ends the broker at once, as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _wait_until_ready(self) -> None:
        from kafka import KafkaAdminClient
        from kafka.errors import KafkaError

        deadline_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline_s and self.process and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
            except OSError:
                time.sleep(0.1)
                continue
            try:
                # The port opens up to half a second before the broker answers.
                admin = KafkaAdminClient(
                    bootstrap_servers=self.bootstrap_servers,
                    bootstrap_timeout_ms=int(START_TIMEOUT_S * 1_000),
                )
                admin.describe_cluster()
                admin.close()
            except KafkaError:
                break
            return
        tail = (self.folder / "broker.log").read_text()[-2_000:]
        self.kill()
        pytest.fail(f"Kafka did not answer in {START_TIMEOUT_S:g} s:\n{tail}")


def skip_or_fail(reason: str) -> None:
    """Skips on a laptop without the tools; in CI a missing tool is an error."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and CI runs every test")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def kafka_libs(repository: Path) -> Path:
    """Kafka's jars, fetched once by Maven into build/kafka-libs."""
    for tool in ("java", "mvn"):
        if shutil.which(tool) is None:
            skip_or_fail(f"Kafka needs {tool}, which is not installed")
    libs = repository / "build" / "kafka-libs"
    if not (libs / "kafka_2.13-4.4.0.jar").exists():
        draft = libs.with_name(f"kafka-libs-{os.getpid()}")
        pom = repository / "tests" / "contract" / "kafka" / "pom.xml"
        command = ["mvn", "-B", "-q", "-f", str(pom), "dependency:copy-dependencies"]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={draft}"]
        fetched = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
        if fetched.returncode:
            shutil.rmtree(draft, ignore_errors=True)
            skip_or_fail(f"Maven could not fetch Kafka: {fetched.stdout[-500:]}")
        shutil.rmtree(libs, ignore_errors=True)
        draft.rename(libs)
    return libs


@pytest.fixture(scope="session")
def kafka_broker(kafka_libs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A running broker with its data in a temporary folder."""
    folder = tmp_path_factory.mktemp("kafka")
    port, controller_port = free_ports(2)
    (folder / "log4j2.properties").write_text(LOGGING)
    (folder / "server.properties").write_text(
        PROPERTIES.format(port=port, controller_port=controller_port, folder=folder)
    )
    cluster_id = "A" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
    properties = str(folder / "server.properties")
    command = ["java", *JVM, "-cp", f"{kafka_libs}/*", "kafka.tools.StorageTool", "format"]
    command += ["-t", cluster_id, "-c", properties, "--standalone"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    broker = Broker(kafka_libs, folder, port)
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


def free_ports(count: int) -> list[int]:
    """Finds ports of loopback that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for opened in sockets:
        opened.bind(("127.0.0.1", 0))
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports
