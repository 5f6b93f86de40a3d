"""A replayed cell keeps histories as the history consumer does."""

from collections.abc import Sequence

import pytest

from onepiece.events.history import HistoryConsumer, HistoryRecipe
from onepiece.events.history_fold import UserHistory
from onepiece.events.schema import Click, Event
from onepiece.events.sqlite_log import SqliteEventLog
from onepiece.features.memory_store import MemoryStore
from onepiece.features.store import SignalKey
from onepiece.serving.schemas import Answer, AnswerItem, RecommendRequest
from onepiece.simulation.cell_platform import Cell, CellPlatform, Histories
from onepiece.simulation.platform import PageRequest

T0_MS = 1_500_000_000_000
CATEGORY_OF = {f"item-{number}": f"category-{number % 2}" for number in range(6)}
RECIPE = HistoryRecipe(max_recent_events=4, max_memory_events=2)


def click(number: int) -> Click:
    at_ms = T0_MS + number
    return Click(
        event_id=f"e{number}",
        user_id=f"u{number % 2}",
        at_ms=at_ms,
        received_at_ms=at_ms,
        item_id=f"item-{number % 6}",
    )


def keys() -> list[SignalKey]:
    return [
        SignalKey(user, "query", category, T0_MS + 1_000)
        for user in ("u0", "u1")
        for category in ("category-0", "category-1")
    ]


class FakePipeline:
    """Answers with the items of the user's history, newest first, and notes who was asked."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.asked: list[RecommendRequest] = []

    def recommend(self, requests: Sequence[RecommendRequest]) -> list[Answer]:
        self.asked.extend(requests)
        signals = self._store.read(
            [SignalKey(one.user_id, one.query_id, "", one.as_of_ms or 0) for one in requests]
        )
        return [
            Answer(
                request_id=one.request_id,
                items=tuple(AnswerItem(item_id=i, score=0) for i in known.recent.item_ids[::-1]),
                as_of_ms=one.as_of_ms,
                retriever=one.retriever,
                ranker=one.ranker,
                is_known_user=known.is_known_user,
                is_known_query=known.is_known_query,
            )
            for one, known in zip(requests, signals, strict=True)
        ]


def platform(*, is_history_streamed: bool) -> tuple[CellPlatform, FakePipeline]:
    store = MemoryStore()
    pipeline = FakePipeline(store)
    made = CellPlatform(
        Cell("popular", "repeat", is_history_streamed=is_history_streamed),
        pipeline,
        store=store,
        histories=Histories(store, {}, category_of=CATEGORY_OF, recipe=RECIPE),
        queries_of_day={T0_MS: [], T0_MS + 1: []},
    )
    made.start_day(T0_MS)
    return made, pipeline


def ask(made: CellPlatform) -> tuple[str, ...]:
    request = PageRequest("r", "u1", "query", "s", T0_MS + 100, 5)
    return made.answer([request])[0].item_ids


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_a_cell_keeps_the_histories_that_the_consumer_keeps(tmp_path, batch_size: int) -> None:
    events: list[Event] = [click(number) for number in range(20)]
    log = SqliteEventLog.create(tmp_path / "log", num_partitions=2)
    log.append(events)
    streamed, replayed = MemoryStore(), MemoryStore()
    histories = Histories(replayed, {}, category_of=CATEGORY_OF, recipe=RECIPE)

    HistoryConsumer(log, streamed, category_of=CATEGORY_OF, recipe=RECIPE).poll()
    for first in range(0, len(events), batch_size):
        histories.fold(events[first : first + batch_size])

    assert replayed.read(keys()) == streamed.read(keys())
    log.close()


def test_the_history_of_one_cell_never_changes_that_of_another() -> None:
    first = {"u1": UserHistory()}
    second = {name: user.copy() for name, user in first.items()}
    store = MemoryStore()

    Histories(store, second, category_of=CATEGORY_OF, recipe=RECIPE).fold([click(1), click(3)])

    assert first["u1"].recent == []
    assert len(second["u1"].recent) == 2


def test_a_cell_answers_everybody_with_its_own_retriever_and_ranker() -> None:
    made, pipeline = platform(is_history_streamed=True)

    ask(made)

    assert [(one.retriever, one.ranker) for one in pipeline.asked] == [("popular", "repeat")]


def test_streamed_histories_are_known_to_the_next_request() -> None:
    made, _ = platform(is_history_streamed=True)

    made.observe([click(1), click(3)])

    assert ask(made) == ("item-3", "item-1")


def test_frozen_histories_are_known_on_the_next_day() -> None:
    made, _ = platform(is_history_streamed=False)

    made.observe([click(1), click(3)])
    on_the_day = ask(made)
    made.start_day(T0_MS + 1)
    on_the_next = ask(made)

    assert on_the_day == ()
    assert on_the_next == ("item-3", "item-1")
