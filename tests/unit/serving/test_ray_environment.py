import socket
from pathlib import Path

from onepiece.serving.ray_environment import RANGE_SIZE, ray_environment

KINDS = ("HTTP", "GRPC")


def ranges_of(environment: dict[str, str]) -> list[tuple[int, int]]:
    return [
        (
            int(environment[f"RAY_SERVE_DIRECT_INGRESS_MIN_{kind}_PORT"]),
            int(environment[f"RAY_SERVE_DIRECT_INGRESS_MAX_{kind}_PORT"]),
        )
        for kind in KINDS
    ]


def test_a_second_server_gets_other_ports_for_its_replicas(tmp_path: Path) -> None:
    first = ranges_of(ray_environment(tmp_path))
    doors = []
    for start, _ in first:
        door = socket.socket()
        # As Ray's replicas listen: a port that says it may be shared.
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        door.bind(("127.0.0.1", start))
        door.listen()
        doors.append(door)

    second = ranges_of(ray_environment(tmp_path))
    for door in doors:
        door.close()

    for (start, stop), (other_start, other_stop) in zip(first, second, strict=True):
        assert stop - start == RANGE_SIZE
        assert other_start >= stop or other_stop <= start


def test_nothing_leaves_the_machine_and_no_token_is_asked(tmp_path: Path) -> None:
    environment = ray_environment(tmp_path)

    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
    assert environment["RAY_AUTH_MODE"] == "disabled"
