from collections.abc import Sequence

import pytest

from onepiece.errors import Unavailable
from onepiece.events.history import HISTORY_GROUP
from onepiece.events.schema import Click, partition_of
from onepiece.events.sqlite_log import SqliteEventLog
from onepiece.serving.schemas import Answer, RecommendRequest
from onepiece.simulation.live_platform import LivePlatform, TwoDoorClient
from onepiece.simulation.platform import PageRequest

T0_MS = 1_500_000_000_000


class FakeDoor:
    def __init__(self) -> None:
        self.users: list[str] = []

    def recommend(self, request: RecommendRequest) -> Answer:
        self.users.append(request.user_id)
        return Answer(
            request_id=request.request_id,
            items=(),
            as_of_ms=T0_MS,
            is_known_user=False,
            is_known_query=False,
        )


class FakeRouter:
    def __init__(self, door: FakeDoor) -> None:
        self._door = door

    def recommend_many(self, requests: Sequence[RecommendRequest]) -> list[Answer]:
        return [self._door.recommend(request) for request in requests]


@pytest.fixture
def log(tmp_path):
    log = SqliteEventLog.create(tmp_path / "log", num_partitions=2)
    yield log
    log.close()


def click(user_id: str) -> Click:
    return Click(
        event_id=f"click of {user_id}",
        user_id=user_id,
        at_ms=T0_MS,
        received_at_ms=T0_MS,
        item_id="milk",
    )


def request(user_id: str) -> PageRequest:
    return PageRequest(f"request of {user_id}", user_id, "milk", "s1", T0_MS + 1, 5)


def test_a_request_waits_until_the_users_last_event_is_folded(log) -> None:
    door = FakeDoor()
    pauses = []

    def fold_at_the_third_pause(seconds: float) -> None:
        pauses.append(seconds)
        assert door.users == []
        if len(pauses) == 3:
            log.commit(HISTORY_GROUP, dict(enumerate(log.end_offsets())))

    platform = LivePlatform(
        FakeRouter(door), log, start_day=lambda at_ms: None, pause=fold_at_the_third_pause
    )
    platform.observe([click("u1")])

    pages = platform.answer([request("u1")])

    assert len(pauses) == 3
    assert [page.request_id for page in pages] == ["request of u1"]


def test_a_user_without_events_does_not_wait(log) -> None:
    def never(seconds: float) -> None:
        raise AssertionError

    platform = LivePlatform(FakeRouter(FakeDoor()), log, start_day=lambda at_ms: None, pause=never)
    platform.observe([click("u1")])

    assert len(platform.answer([request("u2")])) == 1


def test_a_consumer_that_is_gone_ends_the_wait(log) -> None:
    def gone(seconds: float) -> None:
        raise Unavailable("the consumer is gone")

    platform = LivePlatform(FakeRouter(FakeDoor()), log, start_day=lambda at_ms: None, pause=gone)
    platform.observe([click("u1")])

    with pytest.raises(Unavailable, match="gone"):
        platform.answer([request("u1")])


def test_a_user_always_comes_through_the_same_door_and_both_are_used() -> None:
    rest, grpc = FakeDoor(), FakeDoor()
    client = TwoDoorClient(rest, grpc)
    users = [f"u{number}" for number in range(20)]

    for user_id in users * 2:
        client.recommend(
            RecommendRequest(
                request_id="r", user_id=user_id, query_id="milk", store_id="s1", as_of_ms=T0_MS
            )
        )

    assert set(rest.users) == {user for user in users if partition_of(user, 2) == 0}
    assert set(rest.users) | set(grpc.users) == set(users)
    assert not set(rest.users) & set(grpc.users)
