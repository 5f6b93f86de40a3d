"""The verb `onepiece simulation services`: a Kafka and a Redis to try things out with."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from onepiece.events.kafka_settings import PREFIX

DEFAULT_FOLDER = Path("runs/services")
"""Where the services keep everything."""
_STATE = "services.json"


class _State(BaseModel):
    """Where the services of a folder listen, and which processes they are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kafka_port: int
    controller_port: int
    redis_port: int
    pids: tuple[int, ...] = ()
    """Of Kafka and Redis, once they were started."""


def add_service_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `services`."""
    parser = subparsers.add_parser(
        "services",
        help="start or stop a real Kafka and Redis on this machine",
        description="Fetch Apache Kafka from Maven Central, start it and Redis on loopback, make "
        "the topics, and print the environment that the other commands read. For trying out.",
        epilog="example: onepiece simulation services up",
    )
    parser.add_argument("action", choices=("up", "down", "status"))
    parser.add_argument(
        "--folder",
        type=Path,
        default=DEFAULT_FOLDER,
        help="where they keep their data and logs (default %(default)s)",
    )
    parser.add_argument(
        "--libs",
        type=Path,
        default=Path("build/kafka-libs"),
        help="where Kafka's jars are kept (default %(default)s)",
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    actions = {"up": _up, "down": _down, "status": _status}
    return actions[args.action](args)


def _up(args: argparse.Namespace) -> int:
    from onepiece.events.kafka_settings import KafkaSettings
    from onepiece.events.kafka_topics import apply_topics
    from onepiece.simulation.services import (
        KafkaService,
        RedisService,
        Services,
        fetch_kafka,
        free_ports,
    )

    state = _read(args.folder)
    if state is not None and any(map(_is_alive, state.pids)):
        _show(state)
        return 0
    args.folder.mkdir(parents=True, exist_ok=True)
    if state is None:
        kafka_port, controller_port, redis_port = free_ports(3)
        state = _State(
            kafka_port=kafka_port, controller_port=controller_port, redis_port=redis_port
        )
    libs = fetch_kafka(args.libs)
    kafka = KafkaService(libs, args.folder / "kafka", state.kafka_port)
    redis = RedisService(args.folder / "redis", state.redis_port)
    if not (kafka.folder / "data").is_dir():
        kafka.prepare(controller_port=state.controller_port)
    services = Services(kafka, redis)
    services.start()
    try:
        apply_topics(KafkaSettings(bootstrap_servers=kafka.bootstrap_servers))
    except BaseException:
        services.kill()
        raise
    assert kafka.process  # noqa: S101 - it has started
    assert redis.process  # noqa: S101 - it has started
    state = state.model_copy(update={"pids": (kafka.process.pid, redis.process.pid)})
    (args.folder / _STATE).write_text(state.model_dump_json() + "\n")
    _show(state)
    return 0


def _down(args: argparse.Namespace) -> int:
    state = _read(args.folder)
    pids = () if state is None else state.pids
    for pid in filter(_is_alive, pids):
        os.kill(pid, signal.SIGTERM)
    while any(map(_is_alive, pids)):
        time.sleep(0.1)
    sys.stdout.write(f"stopped; their data stay in {args.folder}\n")
    return 0


def _status(args: argparse.Namespace) -> int:
    state = _read(args.folder)
    pids = (0, 0) if state is None or not state.pids else state.pids
    for name, pid in zip(("Kafka", "Redis"), pids, strict=True):
        said = f"running, pid {pid}" if _is_alive(pid) else "stopped"
        sys.stdout.write(f"{name} {said}\n")
    return 0 if all(map(_is_alive, pids)) else 1


def _show(state: _State) -> None:
    sys.stdout.write(
        f"export {PREFIX}BOOTSTRAP_SERVERS=127.0.0.1:{state.kafka_port}\n"
        f"export ONEPIECE_REDIS=127.0.0.1:{state.redis_port}\n"
    )


def _read(folder: Path) -> _State | None:
    path = folder / _STATE
    return _State.model_validate_json(path.read_text()) if path.is_file() else None


def _is_alive(pid: int) -> bool:
    """Says whether a process runs; one that ended and was not waited for counts as ended."""
    if pid <= 0:
        return False
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
