import threading

import pytest

from onepiece.errors import EventLogUnavailable, InvalidRequest, OnePieceError, Unavailable
from onepiece.experiment.assignment import FixedAssignment, PlannedAssignment
from onepiece.experiment.plan import ExperimentPlan, demo_plan
from onepiece.experiment.router import Router, exposure_id
from onepiece.serving.schemas import Answer, AnswerItem, RecommendRequest

AS_OF_MS = 1_510_000_000_000


class MemoryLog:
    """Keeps what was appended, one list an append; can refuse."""

    num_partitions = 1

    def __init__(self, *, refuses=False):
        self.appends = []
        self.refuses = refuses

    def append(self, events):
        if self.refuses:
            raise EventLogUnavailable("the log is down")
        self.appends.append(list(events))
        return []


class EchoClient:
    """Answers with the names of who retrieved and ranked; fails for one user."""

    def __init__(self, *, log, failing_user=None, barrier=None):
        self.log = log
        self.failing_user = failing_user
        self.barrier = barrier
        self.num_appends_seen = []

    def recommend(self, request):
        if self.barrier is not None:
            self.barrier.wait(timeout=10)
        if request.user_id == self.failing_user:
            raise Unavailable("serving is down")
        self.num_appends_seen.append(len(self.log.appends))
        return Answer(
            request_id=request.request_id,
            items=(
                AnswerItem(item_id=request.retriever, score=2.0),
                AnswerItem(item_id=f"{request.ranker}-ranked", score=1.0),
            ),
            as_of_ms=request.as_of_ms,
            model_version="v1",
            context_digest="digest",
            context_parts={"recent": "0a1b2c3d"},
            retriever=request.retriever,
            ranker=request.ranker,
            is_known_user=True,
            is_known_query=True,
            degraded_by="stale_features",
        )


def request_of(user_id, number=0):
    return RecommendRequest(
        request_id=f"{user_id}/{number}",
        user_id=user_id,
        query_id="Milk ",
        store_id="s1",
        as_of_ms=AS_OF_MS,
    )


def router_of(log, **options):
    client = EchoClient(log=log, **options)
    return Router(demo_plan(1), client, log), client


def test_the_arms_of_the_user_decide_who_retrieves_and_ranks():
    log = MemoryLog()
    router, _ = router_of(log)
    assignment = PlannedAssignment(demo_plan(1))

    answers = {user: router.recommend(request_of(user)) for user in ("a", "b", "c", "d", "e")}

    for user, answer in answers.items():
        arms = assignment.arms_of(user)
        assert (answer.retriever, answer.ranker) == (arms["retrieval"], arms["prerank"])
    assert len({(a.retriever, a.ranker) for a in answers.values()}) > 1


def test_the_exposure_says_all_that_the_answer_says():
    log = MemoryLog()
    router, _ = router_of(log)

    answer = router.recommend(request_of("a"))

    [[exposure]] = log.appends
    assert exposure.event_id == exposure_id("a/0")
    assert (exposure.user_id, exposure.request_id, exposure.query_id) == ("a", "a/0", "milk")
    assert exposure.store_id == "s1"
    assert exposure.at_ms == exposure.received_at_ms == AS_OF_MS
    assert exposure.item_ids == tuple(item.item_id for item in answer.items)
    assert exposure.arms == PlannedAssignment(demo_plan(1)).arms_of("a")
    assert (exposure.model_version, exposure.context_digest) == ("v1", "digest")
    assert exposure.context_parts == {"recent": "0a1b2c3d"}
    assert exposure.degraded_by == "stale_features"
    assert exposure.propensities is None


def test_no_answer_leaves_when_its_exposure_is_not_durable():
    router, client = router_of(MemoryLog(refuses=True))

    with pytest.raises(EventLogUnavailable):
        router.recommend(request_of("a"))

    assert client.num_appends_seen == [0]


def test_a_batch_is_answered_in_order_and_logged_in_one_append():
    log = MemoryLog()
    router, _ = router_of(log)
    requests = [request_of(f"user-{number}") for number in range(30)]

    with router:
        answers = router.recommend_many(requests)

    assert [answer.request_id for answer in answers] == [r.request_id for r in requests]
    assert [len(events) for events in log.appends] == [30]
    assert [e.request_id for e in log.appends[0]] == [r.request_id for r in requests]


def test_requests_of_a_batch_are_under_way_at_once():
    # Every request waits for the others: one after another would never end.
    log = MemoryLog()
    router, _ = router_of(log, barrier=threading.Barrier(8))

    with router:
        answers = router.recommend_many([request_of(f"user-{number}") for number in range(8)])

    assert len(answers) == 8


def test_one_failure_fails_the_batch_and_logs_nothing():
    log = MemoryLog()
    router, _ = router_of(log, failing_user="user-3")

    with router, pytest.raises(Unavailable, match="serving is down"):
        router.recommend_many([request_of(f"user-{number}") for number in range(6)])

    assert log.appends == []


def test_two_requests_of_one_id_are_refused():
    router, _ = router_of(MemoryLog())

    with pytest.raises(InvalidRequest, match="same request_id"):
        router.recommend_many([request_of("a"), request_of("a")])


def test_an_empty_batch_asks_and_logs_nothing():
    log = MemoryLog()
    router, client = router_of(log)

    assert router.recommend_many([]) == []
    assert log.appends == []
    assert client.num_appends_seen == []


def test_an_answer_to_another_request_is_not_logged():
    log = MemoryLog()

    class Confused(EchoClient):
        def recommend(self, request):
            return super().recommend(request).model_copy(update={"request_id": "other"})

    router = Router(demo_plan(1), Confused(log=log), log)

    with pytest.raises(OnePieceError, match="with the answer to 'other'"):
        router.recommend(request_of("a"))
    assert log.appends == []


def test_who_takes_no_part_is_answered_by_the_controls_and_logged_without_arms():
    plan = ExperimentPlan.model_validate({**demo_plan(1).model_dump(), "traffic_bp": 0})
    log = MemoryLog()
    router = Router(plan, EchoClient(log=log), log)

    answer = router.recommend(request_of("a"))

    assert (answer.retriever, answer.ranker) == ("popular", "popular")
    assert log.appends[0][0].arms == {}


def test_forced_arms_answer_everybody():
    plan, log = demo_plan(1), MemoryLog()
    fixed = FixedAssignment(plan, {"retrieval": "repeat", "prerank": "onepiece"})
    router = Router(plan, EchoClient(log=log), log, assignment=fixed)

    with router:
        answers = router.recommend_many([request_of(f"user-{number}") for number in range(5)])

    assert {(a.retriever, a.ranker) for a in answers} == {("repeat", "onepiece")}


def test_a_request_asked_again_is_a_duplicate_event():
    log = MemoryLog()
    router, _ = router_of(log)

    router.recommend(request_of("a"))
    router.recommend(request_of("a"))

    assert log.appends[0][0].event_id == log.appends[1][0].event_id
    assert exposure_id("a/0") != exposure_id("a/1")
