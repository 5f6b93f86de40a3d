import asyncio
import threading

from onepiece.errors import DeadlineExceeded, InvalidRequest, Overloaded
from onepiece.serving.schemas import RECOMMEND, Answer, RecommendRequest
from onepiece.serving.service import Service
from onepiece.serving.settings import ServingSettings


class FakePipeline:
    """Answers with nothing, when it is allowed to; notes who was answered together."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.has_started = threading.Event()

    def check(self, request: RecommendRequest) -> None:
        if request.retriever == "unknown":
            raise InvalidRequest("unknown retriever")

    def answer(self, requests: list[RecommendRequest]) -> list[Answer]:
        self.has_started.set()
        assert self.may_answer.wait(30)
        self.batches.append([request.request_id for request in requests])
        if any(request.user_id == "trouble" for request in requests):
            raise RuntimeError("trouble")
        return [
            Answer(
                request_id=request.request_id,
                items=(),
                as_of_ms=request.as_of_ms,
                is_known_user=False,
                is_known_query=False,
            )
            for request in requests
        ]

    def close(self) -> None:
        return None


def ask(service, request_id, **changes):
    fields = {
        "request_id": request_id,
        "user_id": "u1",
        "query_id": "milk",
        "store_id": "s1",
        "as_of_ms": 1_500_000_000_000,
    }
    request = RecommendRequest(**fields | changes)
    return asyncio.ensure_future(service.answer(RECOMMEND, lambda: request))


async def queue_behind_the_first(service, pipeline, asked):
    """Asks once, waits until that is being answered, then asks for the rest."""
    pipeline.may_answer.clear()
    first = ask(service, "first")
    await asyncio.to_thread(pipeline.has_started.wait, 30)
    rest = [ask(service, request_id, **changes) for request_id, changes in asked]
    for _ in range(3):
        await asyncio.sleep(0)
    return first, rest


def run(test, **settings):
    pipeline = FakePipeline()

    async def body():
        service = Service(pipeline, ServingSettings(**settings), read_clock_ms=lambda: 0)
        try:
            return await test(service, pipeline)
        finally:
            pipeline.may_answer.set()
            await service.close()

    return asyncio.run(body()), pipeline


def test_requests_that_wait_are_answered_together_in_order():
    async def test(service, pipeline):
        first, rest = await queue_behind_the_first(
            service, pipeline, [(name, {}) for name in "abcde"]
        )
        pipeline.may_answer.set()
        return [answer.request_id for answer in await asyncio.gather(first, *rest)]

    answered, pipeline = run(test)

    assert answered == ["first", *"abcde"]
    assert pipeline.batches == [["first"], [*"abcde"]]


def test_a_batch_holds_at_most_as_many_as_set():
    async def test(service, pipeline):
        first, rest = await queue_behind_the_first(
            service, pipeline, [(name, {}) for name in "abcde"]
        )
        pipeline.may_answer.set()
        await asyncio.gather(first, *rest)

    _, pipeline = run(test, max_batch_requests=2)

    assert pipeline.batches == [["first"], ["a", "b"], ["c", "d"], ["e"]]


def test_one_request_too_many_is_refused_and_the_others_are_answered():
    async def test(service, pipeline):
        first, rest = await queue_behind_the_first(
            service, pipeline, [(name, {}) for name in "abc"]
        )
        pipeline.may_answer.set()
        return await asyncio.gather(first, *rest, return_exceptions=True)

    results, _ = run(test, max_waiting_requests=2)

    assert [type(result) for result in results] == [Answer, Answer, Answer, Overloaded]
    assert "at most 2 may" in str(results[3])


def test_a_request_whose_turn_came_too_late_is_refused():
    async def test(service, pipeline):
        return await asyncio.gather(ask(service, "a"), return_exceptions=True)

    [result], pipeline = run(test, deadline_s=1e-12)

    assert isinstance(result, DeadlineExceeded)
    assert pipeline.batches == []


def test_nobody_pays_for_the_trouble_of_another():
    async def test(service, pipeline):
        first, rest = await queue_behind_the_first(
            service, pipeline, [("a", {}), ("b", {"user_id": "trouble"}), ("c", {})]
        )
        pipeline.may_answer.set()
        return await asyncio.gather(first, *rest, return_exceptions=True)

    results, pipeline = run(test)

    assert [type(result) for result in results] == [Answer, Answer, RuntimeError, Answer]
    assert pipeline.batches == [["first"], ["a", "b", "c"], ["a"], ["b"], ["c"]]


def test_a_wrong_request_is_refused_before_it_waits():
    async def test(service, pipeline):
        first, [wrong] = await queue_behind_the_first(
            service, pipeline, [("a", {"retriever": "unknown"})]
        )
        is_refused = wrong.done() and isinstance(wrong.exception(), InvalidRequest)
        pipeline.may_answer.set()
        await first
        return is_refused

    is_refused, _ = run(test)

    assert is_refused


def test_a_caller_who_left_is_not_answered():
    async def test(service, pipeline):
        first, [left, stayed] = await queue_behind_the_first(
            service, pipeline, [("a", {}), ("b", {})]
        )
        left.cancel()
        await asyncio.sleep(0)
        pipeline.may_answer.set()
        await asyncio.gather(first, stayed)

    _, pipeline = run(test)

    assert pipeline.batches == [["first"], ["b"]]


def test_who_waits_when_the_service_stops_is_told_to_ask_again():
    async def test(service, pipeline):
        first, [waiting] = await queue_behind_the_first(service, pipeline, [("a", {})])
        closing = asyncio.ensure_future(service.close())
        await asyncio.sleep(0)
        pipeline.may_answer.set()
        await closing
        return await asyncio.gather(first, waiting, return_exceptions=True)

    results, _ = run(test)

    assert [type(result) for result in results] == [Answer, Overloaded]
