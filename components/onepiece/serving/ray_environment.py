"""Where a server on this machine listens, and the environment that Ray must be imported in.

This module does not import Ray.
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from onepiece.errors import InvalidInput

RANGE_SIZE = 64
"""Ports of a server's replicas; one each, and as many again while they are replaced."""
HTTP_RANGES = range(20_000, 26_000, RANGE_SIZE)
"""Where replicas' own HTTP ports may be; below the ports that Linux gives to clients."""
GRPC_RANGES = range(26_000, 32_000, RANGE_SIZE)
"""Where replicas' own gRPC ports may be."""
CLUSTER_ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        # By default HAProxy's manager is killed if it is not there within 5 s, and the start fails
        # with it; on a machine with more work than processors it took 20 s.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "30",
        "RAY_SERVE_HAPROXY_STARTUP_TIMEOUT_S": "60",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
)
"""Variables of every pod of a Ray cluster that serves; they must be there before Ray is imported.

Source:
    Measured on Ray 2.60: throughput mode with HAProxy answers in a tenth of the default's time.
"""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the doors are, and how many replicas are behind them."""

    host: str = "127.0.0.1"
    """Interface of both doors; the default cannot be reached from outside the machine.

    Ray 2.60 opens its own ports (of its processes, HAProxy's statistics, the replicas' gRPC) on
    all interfaces whatever is said here: on a shared network, put a firewall before them.
    """
    http_port: int = 8000
    """Port of REST."""
    grpc_port: int = 9000
    """Port of gRPC."""
    num_replicas: int = 1
    """Processes that answer."""

    @property
    def http_url(self) -> str:
        """Address of REST."""
        return f"http://{self.host}:{self.http_port}"

    @property
    def grpc_target(self) -> str:
        """Address of gRPC."""
        return f"{self.host}:{self.grpc_port}"


def check_ports(addresses: Addresses) -> None:
    """Checks that both doors can be opened: HAProxy itself would only retry, and say nothing.

    Raises:
        InvalidInput: A port is taken, out of range, or given twice.
    """
    if addresses.num_replicas < 1:
        raise InvalidInput(f"--replicas is {addresses.num_replicas}; give at least 1")
    if addresses.http_port == addresses.grpc_port:
        raise InvalidInput(f"both ports are {addresses.http_port}; give REST and gRPC one each")
    for option, port in (
        ("--http-port", addresses.http_port),
        ("--grpc-port", addresses.grpc_port),
    ):
        try:
            if port < 1:
                raise OverflowError("a port is 1 to 65535")
            with socket.socket() as door:
                door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                door.bind((addresses.host, port))
        except (OSError, OverflowError) as error:
            raise InvalidInput(
                f"{option} {port} of {addresses.host} cannot be used: {error}; give another"
            ) from error


def ray_environment(folder: Path) -> dict[str, str]:
    """Lists the variables for one server on this machine.

    Args:
        folder: HAProxy's files; its defaults are one folder for all servers of the machine.

    Source:
        Measured on Ray 2.60: without the draining period a shutdown takes 30 s.
    """
    metrics, stats, fallback_http, fallback_grpc = map(str, _free_ports(4))
    http_ports = _free_range(HTTP_RANGES)
    grpc_ports = _free_range(GRPC_RANGES)
    return {
        **CLUSTER_ENVIRONMENT,
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": metrics,
        "RAY_SERVE_HAPROXY_STATS_PORT": stats,
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": fallback_http,
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": fallback_grpc,
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "2",
        # Replicas listen with SO_REUSEPORT: two servers of one machine with Ray's default ports
        # would share them, and one would answer the other's requests.
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(http_ports.start),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(http_ports.stop),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(grpc_ports.start),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(grpc_ports.stop),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.5",
        # The cluster is one machine's own and listens on loopback.
        "RAY_AUTH_MODE": "disabled",
    }


def _free_range(ranges: range) -> range:
    """Finds a range of ports in which nobody listens, trying another one first in each process.

    Raises:
        InvalidInput: All ranges are taken.
    """
    first = os.getpid() % len(ranges)
    for start in (*ranges[first:], *ranges[:first]):
        ports = range(start, start + RANGE_SIZE)
        if all(map(_is_free, ports)):
            return ports
    raise InvalidInput(
        f"no {RANGE_SIZE} free ports in a row from {ranges.start} to {ranges.stop}; end other "
        "servers of this machine"
    )


def _is_free(port: int) -> bool:
    """Says whether a port can be bound; one that another process shares cannot."""
    with socket.socket() as door:
        try:
            door.bind(("", port))
        except OSError:
            return False
    return True


def _free_ports(count: int) -> list[int]:
    """Finds ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
