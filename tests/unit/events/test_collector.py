"""The collector's promises, with a sink whose acknowledgements the test gives."""

import asyncio
from collections.abc import Sequence

import pytest

from onepiece.errors import EventLogUnavailable, Overloaded, PayloadTooLarge
from onepiece.events.collector import Collector, Sending, Settle
from onepiece.events.collector_answers import AppendAnswer, Status
from onepiece.events.collector_settings import CollectorSettings

NOW_MS = 1_500_000_000_000
SMALL = {"max_request_bytes": 1_024, "max_in_flight_bytes": 10_000, "timeout_s": 0.2}


class HeldSink:
    """Keeps what it is given until it is told what became of it."""

    def __init__(self) -> None:
        self.held: list[tuple[Sending, Settle]] = []
        self.num_sent = 0
        self.error: Exception | None = None

    def send(self, batch: Sequence[Sending], settle: Settle) -> None:
        self.num_sent += len(batch)
        self.held += [(sending, settle) for sending in batch]

    def settle_all(self, error: Exception | None = None) -> None:
        held, self.held = self.held, []
        for sending, settle in held:
            settle(sending, error)

    def check(self) -> None:
        if self.error is not None:
            raise self.error

    def close(self, timeout_s: float) -> None:
        self.settle_all(EventLogUnavailable("closed"))


def raw(number: int, **changes: object) -> dict[str, object]:
    fields = {"kind": "click", "event_id": f"e{number}", "user_id": "u", "at_ms": NOW_MS}
    return fields | {"item_id": "milk"} | changes


def new_collector(sink: HeldSink, **settings: object) -> Collector:
    return Collector(
        sink,
        CollectorSettings(**(SMALL | settings)),
        now_ms=lambda: NOW_MS,
        monotonic_s=asyncio.get_running_loop().time,
    )


def ask(collector: Collector, *raws: object, body_bytes: int = 0) -> "asyncio.Task[AppendAnswer]":
    async def read(admission) -> Sequence[object]:
        admission.take(body_bytes)
        return raws

    return asyncio.create_task(collector.answer("http", read))


async def turn() -> None:
    """Lets every task go as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


def statuses(answer: AppendAnswer) -> list[str]:
    return [result.status.value for result in answer.results]


def test_nothing_is_answered_before_the_sink_has_acknowledged():
    async def scenario() -> None:
        sink = HeldSink()
        asked = ask(new_collector(sink), raw(1), raw(2), {"no": "event"}, raw(1))
        await turn()
        was_done = asked.done()

        sink.settle_all()

        assert not was_done
        assert statuses(await asked) == ["accepted", "accepted", "rejected", "duplicate"]
        assert sink.num_sent == 2

    asyncio.run(scenario())


def test_two_requests_at_once_with_one_id_give_one_record():
    async def scenario() -> None:
        sink = HeldSink()
        collector = new_collector(sink)
        first, second = ask(collector, raw(1)), ask(collector, raw(1))
        await turn()
        sink.settle_all()

        assert statuses(await first) == ["accepted"]
        assert statuses(await second) == ["duplicate"]
        assert sink.num_sent == 1

    asyncio.run(scenario())


def test_an_id_is_remembered_only_when_its_event_was_acknowledged():
    async def scenario() -> None:
        sink = HeldSink()
        collector = new_collector(sink)
        failed = ask(collector, raw(1))
        await turn()
        sink.settle_all(EventLogUnavailable("the broker is gone"))
        again = ask(collector, raw(1))
        await turn()
        sink.settle_all()

        result = (await failed).results[0]
        assert (result.status, result.reason) == (Status.UNKNOWN, "the broker is gone")
        assert statuses(await again) == ["accepted"]
        assert statuses(await ask(collector, raw(1))) == ["duplicate"]
        assert sink.num_sent == 2

    asyncio.run(scenario())


def test_what_is_not_acknowledged_in_time_is_unknown_and_a_retry_waits_for_it():
    async def scenario() -> None:
        sink = HeldSink()
        collector = new_collector(sink, timeout_s=0.01)
        late = await ask(collector, raw(1))
        again = ask(collector, raw(1))
        await turn()
        sink.settle_all()

        assert (statuses(late), late.num_unknown) == (["unknown"], 1)
        assert statuses(await again) == ["duplicate"]
        assert sink.num_sent == 1

    asyncio.run(scenario())


def test_a_caller_that_went_away_loses_nothing_and_gives_its_room_back():
    async def scenario() -> None:
        sink = HeldSink()
        collector = new_collector(sink)
        asked = ask(collector, raw(1), body_bytes=9_000)
        await turn()
        asked.cancel()
        await turn()
        sink.settle_all()
        await turn()

        assert statuses(await ask(collector, raw(1), body_bytes=9_000)) == ["duplicate"]

    asyncio.run(scenario())


def test_only_the_newest_ids_are_remembered():
    async def scenario() -> None:
        sink = HeldSink()
        collector = new_collector(sink, max_recent_ids=2)
        for number in (1, 2, 3):
            asked = ask(collector, raw(number))
            await turn()
            sink.settle_all()
            await asked
        asked = ask(collector, raw(1), raw(2), raw(3))
        await turn()
        sink.settle_all()

        assert statuses(await asked) == ["accepted", "duplicate", "duplicate"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "limits", [{"max_in_flight_events": 2, "max_request_events": 2}, {"max_in_flight_bytes": 3_100}]
)
def test_what_does_not_fit_is_refused_whole_and_fits_when_there_is_room(limits):
    async def scenario() -> None:
        sink = HeldSink()
        collector = new_collector(sink, **limits)
        held = ask(collector, raw(1, query_id="x" * 128), raw(2), body_bytes=1_000)
        await turn()

        with pytest.raises(Overloaded, match="nothing was appended"):
            await ask(collector, raw(3), body_bytes=2_000)
        sink.settle_all()
        await held
        asked = ask(collector, raw(3), body_bytes=2_000)
        await turn()
        sink.settle_all()

        assert statuses(await asked) == ["accepted"]
        assert sink.num_sent == 3

    asyncio.run(scenario())


def test_events_stay_in_the_count_until_they_are_settled_not_until_the_answer():
    async def scenario() -> None:
        collector = new_collector(
            HeldSink(), timeout_s=0.01, max_in_flight_events=2, max_request_events=2
        )
        await ask(collector, raw(1), raw(2))

        with pytest.raises(Overloaded):
            await ask(collector, raw(3))

    asyncio.run(scenario())


def test_too_many_events_are_too_large():
    async def scenario() -> None:
        collector = new_collector(HeldSink(), max_request_events=2)

        with pytest.raises(PayloadTooLarge, match="holds 3 events, at most 2"):
            await ask(collector, *[raw(number) for number in range(3)])

    asyncio.run(scenario())


def test_it_is_ready_when_the_sink_answers():
    async def scenario() -> None:
        sink = HeldSink()
        collector = new_collector(sink)
        before = await collector.is_ready()
        sink.error = EventLogUnavailable("gone")

        assert (before, await collector.is_ready()) == (True, False)

    asyncio.run(scenario())


def test_closing_waits_for_what_is_in_flight_and_gives_up_in_the_end():
    async def scenario() -> None:
        sink = HeldSink()
        collector = new_collector(sink, timeout_s=5.0)
        asked = ask(collector, raw(1))
        await turn()
        closing = asyncio.create_task(collector.close(0.05))
        await turn()
        was_done = closing.done()
        await closing

        assert not was_done
        assert statuses(await asked) == ["unknown"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_in_flight_bytes": 2_048, "max_request_bytes": 1_024}, "three times"),
        ({"max_in_flight_events": 10, "max_request_events": 11}, "at least as much"),
        ({"max_event_bytes": 4 << 20}, "less than or equal"),
        ({"surprise": 1}, "extra"),
    ],
)
def test_limits_under_which_no_request_fits_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        CollectorSettings(**settings)
