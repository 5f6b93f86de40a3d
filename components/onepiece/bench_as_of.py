"""Times and weighs the point-in-time join; `bench.py` prints what it finds.

Each way runs in a process of its own, since a process never gives back the most that it took.
"""

import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from onepiece.bench_online import Figures
from onepiece.bench_shoppers import NOW_MS, NUM_CATEGORIES, YEAR_MS, drawn_history, item_id
from onepiece.events.anchors import Anchors, QueryUpdate
from onepiece.events.history import HistoryUpdate
from onepiece.events.interactions import Interactions
from onepiece.features.as_of_answers import iter_answers
from onepiece.features.as_of_join import join_file
from onepiece.features.backfill import ViewWriter
from onepiece.features.schema import SERVICE_VIEWS, features_of, join_keys_of
from onepiece.features.store import SignalKey, Signals, UserProfile
from onepiece.features.view_rows import (
    EVENT_TIMESTAMP,
    columns_of,
    history_rows,
    profile_rows,
    query_rows,
    signals_of,
)

NUM_QUERIES = 2_000
NUM_DAYS = 28
"""Days with anchors of every query."""
STATES_PER_USER = 20
"""At most so many states of a user are in the files, evenly spread over her events."""
DAY_MS = 86_400_000
KEYS_PER_JOIN = 2_000
"""Questions joined at once by the way that reads the files for each such join."""


def time_join(*, num_users: int, num_questions: int) -> Figures:
    """Answers the same questions by some thousand at a time and by buckets."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        num_rows = _write_files(folder, num_users)
        chunked = _measure(_by_chunks, folder, num_users, num_questions)
        bucketed = _measure(iter_answers, folder, num_users, num_questions)
        return Figures(
            chunked[0],
            bucketed[0],
            {"chunks_peak_mib": chunked[1], "buckets_peak_mib": bucketed[1]},
            {"questions": num_questions, "users": num_users, "rows": num_rows},
        )


def weigh_join(*, num_users: int, num_questions: int) -> Figures:
    """Answers a tenth of the questions, then all, by buckets."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        num_rows = _write_files(folder, num_users)
        few = _measure(iter_answers, folder, num_users, num_questions // 10)
        many = _measure(iter_answers, folder, num_users, num_questions)
        return Figures(
            few[1],
            many[1],
            {
                "tenth_s": few[0],
                "all_s": many[0],
                "questions_per_s": num_questions / many[0],
                "files_mib": sum(path.stat().st_size for path in folder.iterdir()) / 2**20,
            },
            {"questions": num_questions, "users": num_users, "rows": num_rows},
        )


def _write_files(folder: Path, num_users: int) -> int:
    """Writes what a backfill would write, in order of users' numbers; returns the rows."""
    draws = np.random.default_rng(0)
    with ViewWriter(folder) as writer:
        for number in range(num_users):
            writer.write(history_rows(_states(drawn_history(draws, number))))
        for day in range(NUM_DAYS):
            available_at_ms = NOW_MS - day * DAY_MS
            writer.write(
                query_rows(
                    QueryUpdate(f"query-{number}", available_at_ms, _anchors(number + day), 9)
                    for number in range(NUM_QUERIES)
                )
            )
        profile = UserProfile("25-34", "high", "2")
        profiles = {f"user-{number:07d}": profile for number in range(num_users)}
        writer.write(profile_rows(profiles, available_at_ms=0))
    return sum(writer.num_rows.values())


def _states(last: HistoryUpdate) -> Iterator[HistoryUpdate]:
    """Makes earlier states of a history, each with the memory that its last event changed."""
    recent = last.recent
    category_of = {
        item: name for name, memory in last.memories.items() for item in memory.events.item_ids
    }
    ends = np.unique(np.linspace(1, len(recent), STATES_PER_USER).astype(int)).tolist()
    for end in ends:
        category, at_ms = category_of[recent.item_ids[end - 1]], recent.at_ms[end - 1]
        yield HistoryUpdate(
            last.user_id,
            at_ms,
            Interactions(recent.item_ids[:end], recent.actions[:end], recent.at_ms[:end]),
            {category: replace(last.memories[category], available_at_ms=at_ms, num_events=end)},
            num_events=end,
        )


def _anchors(number: int) -> Anchors:
    items = tuple(item_id(number % NUM_CATEGORIES, rank) for rank in range(10))
    return Anchors(items, items, items)


def _questions(num_users: int, number: int) -> list[SignalKey]:
    """Draws who asks what and when, in order of time, as a log is read for training."""
    draws = np.random.default_rng(1)
    instants = np.sort(draws.integers(NOW_MS - YEAR_MS, NOW_MS, number)).tolist()
    users = draws.integers(0, num_users, number).tolist()
    queries = draws.integers(0, NUM_QUERIES, number).tolist()
    categories = draws.integers(0, NUM_CATEGORIES, number).tolist()
    return [
        SignalKey(f"user-{user:07d}", f"query-{query}", f"category-{category:02d}", at_ms)
        for user, query, category, at_ms in zip(users, queries, categories, instants, strict=True)
    ]


def _by_chunks(folder: Path, keys: Sequence[SignalKey]) -> Iterator[Signals]:
    """Joins some thousand questions at a time, in their order, reading the files for each."""
    for first in range(0, len(keys), KEYS_PER_JOIN):
        chunk = keys[first : first + KEYS_PER_JOIN]
        instants = pa.array([key.as_of_ms - 1 for key in chunk], pa.timestamp("ms", tz="UTC"))
        answers = pa.table(
            {
                "user_id": [key.user_id for key in chunk],
                "query_id": [key.query_id for key in chunk],
                "category_id": [key.category_id for key in chunk],
                EVENT_TIMESTAMP: instants,
            }
        )
        for view in SERVICE_VIEWS:
            joined = join_file(
                folder / f"{view}.parquet",
                answers,
                keys=join_keys_of(view),
                features=[spec.name for spec in features_of(view)],
                instant=EVENT_TIMESTAMP,
                max_age_us=None,
            )
            for name in joined.column_names:
                answers = answers.append_column(name, joined[name])
        yield from signals_of(columns_of(answers), chunk)


def _measure(
    way: Callable[[Path, Sequence[SignalKey]], Iterator[Signals]],
    folder: Path,
    num_users: int,
    number: int,
) -> tuple[float, float]:
    """Runs one way in its own process: seconds, and the most memory beyond the keys in MiB."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_run, (way, folder, num_users, number))


def _run(
    way: Callable[[Path, Sequence[SignalKey]], Iterator[Signals]],
    folder: Path,
    num_users: int,
    number: int,
) -> tuple[float, float]:
    keys = _questions(num_users, number)
    before_mib = _peak_mib()
    started_s = time.perf_counter()
    for _ in way(folder, keys):
        pass
    elapsed_s = time.perf_counter() - started_s
    return elapsed_s, _peak_mib() - before_mib


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
