"""Answers to many questions, from files, against the store in memory."""

import random
import tracemalloc
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onepiece.errors import NotFound
from onepiece.events.anchors import Anchors, QueryUpdate
from onepiece.events.history import HistoryUpdate, MemoryUpdate
from onepiece.events.interactions import Interactions
from onepiece.features import as_of_answers
from onepiece.features.as_of_answers import iter_answers
from onepiece.features.memory_store import MemoryStore
from onepiece.features.schema import MAX_ANCHORS_AGE_MS
from onepiece.features.store import SignalKey, UserProfile
from onepiece.features.view_rows import history_rows, offline_table, profile_rows, query_rows

T0 = 1_500_000_000_000
CATEGORIES = ("milk", "bread")


def fill(folder, store, *, num_users: int, num_rows: int, seed: int = 0) -> None:
    """Writes the same rows to files and to a store in memory."""
    random.seed(seed)
    events = Interactions(("a", "b"), (1, 3), (T0, T0))
    updates = []
    for number in range(num_rows):
        user_id, at_ms = f"u{random.randrange(num_users)}", T0 + random.randrange(50)
        memory = MemoryUpdate(at_ms, events, num_events=number + 1)
        updates.append(
            HistoryUpdate(
                user_id,
                at_ms,
                Interactions((f"i{number}",), (1,), (T0,)),
                {random.choice(CATEGORIES): memory},
                num_events=number + 1,
            )
        )
    queries = [
        QueryUpdate(
            f"q{number % 5}", T0 + number * MAX_ANCHORS_AGE_MS // 9, Anchors((f"i{number}",)), 1
        )
        for number in range(20)
    ]
    profiles = {f"u{number}": UserProfile(f"{number}") for number in range(0, num_users, 2)}
    rows_by_view = history_rows(updates) | query_rows(queries)
    rows_by_view |= profile_rows(profiles, available_at_ms=0)
    store.write_rows(rows_by_view)
    for view, rows in rows_by_view.items():
        path = folder / f"{view}.parquet"
        pq.write_table(offline_table(view, rows), path, row_group_size=50)


def ask(num_users: int, number: int) -> list[SignalKey]:
    return [
        SignalKey(
            f"u{random.randrange(num_users + 3)}",
            f"q{random.randrange(7)}",
            random.choice((*CATEGORIES, "")),
            T0 + random.choice((random.randrange(60), MAX_ANCHORS_AGE_MS)),
        )
        for _ in range(number)
    ]


@pytest.mark.parametrize("per_bucket", [1, 7, 100_000])
def test_answers_are_those_of_the_store_in_memory_in_order(tmp_path, monkeypatch, per_bucket):
    monkeypatch.setattr(as_of_answers, "MAX_QUESTIONS_PER_BUCKET", per_bucket)
    monkeypatch.setattr(as_of_answers, "_ANSWERS_PER_CHUNK", 50)
    monkeypatch.setattr(as_of_answers, "_ANSWERS_PER_BLOCK", 3)
    monkeypatch.setattr(as_of_answers, "_MAX_ROWS_PER_READ", 13)
    store = MemoryStore()
    fill(tmp_path, store, num_users=12, num_rows=300)
    keys = ask(12, 400)

    answers = list(iter_answers(tmp_path, keys))

    assert answers == store.read_as_of(keys)
    assert any(one.is_known_query for one in answers)
    assert any(not one.is_known_query for one in answers)


def test_nobody_asked_is_no_answer(tmp_path):
    fill(tmp_path, MemoryStore(), num_users=2, num_rows=3)

    assert list(iter_answers(tmp_path, [])) == []


def test_nothing_stays_on_disk_if_answers_are_not_taken(tmp_path, monkeypatch):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    fill(tmp_path, MemoryStore(), num_users=2, num_rows=3)
    answers = iter_answers(tmp_path, ask(2, 50))
    assert len(list(islice(answers, 3))) == 3
    assert list((tmp_path / "scratch").iterdir())

    answers.close()

    assert not list((tmp_path / "scratch").iterdir())


def test_memory_does_not_grow_with_the_number_of_questions(tmp_path, monkeypatch):
    monkeypatch.setattr(as_of_answers, "MAX_QUESTIONS_PER_BUCKET", 100)
    monkeypatch.setattr(as_of_answers, "_ANSWERS_PER_BLOCK", 8)
    monkeypatch.setattr(as_of_answers, "_ANSWERS_PER_CHUNK", 200)
    fill(tmp_path, MemoryStore(), num_users=50, num_rows=400)

    def peak_bytes(number: int) -> int:
        keys = ask(50, number)
        before = pa.total_allocated_bytes()
        tracemalloc.start()
        highest = 0
        for _ in iter_answers(tmp_path, keys):
            highest = max(highest, pa.total_allocated_bytes() - before)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak + highest

    few, many = peak_bytes(2_000), peak_bytes(10_000)

    # Each key's bucket takes two bytes, and each open bucket a block.
    assert many < 2 * few


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(NotFound, match="features backfill"):
        next(iter_answers(tmp_path, ask(2, 1)))
