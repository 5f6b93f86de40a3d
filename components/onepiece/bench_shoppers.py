"""What the benchmarks of the online store run on: a Redis of their own, and shoppers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from onepiece.events.history import HistoryRecipe, HistoryUpdate, MemoryUpdate
from onepiece.events.interactions import Interactions
from onepiece.features.redis_settings import RedisSettings
from onepiece.simulation.services import VOLATILE, RedisService, free_ports

NOW_MS = 1_700_000_000_000
YEAR_MS = 365 * 86_400_000
NUM_CATEGORIES = 50
ITEMS_PER_CATEGORY = 400
MEDIAN_EVENTS = 30
"""Events of the user in the middle; the logarithm is normal with `SIGMA`, at most `MAX_EVENTS`."""
SIGMA = 1.1
MAX_EVENTS = 2_000


def item_id(category: int, rank: int) -> str:
    """Names the item of a category with a place in its popularity."""
    return f"item-{category * ITEMS_PER_CATEGORY + rank:06d}"


def full_history(number: int, recipe: HistoryRecipe) -> HistoryUpdate:
    """A user whose history and memory are as long as they get."""

    def past(count: int) -> Interactions:
        items = tuple(item_id(0, (number + place) % 400) for place in range(count))
        return Interactions(items, (1, 3) * (count // 2), tuple(range(NOW_MS - count, NOW_MS)))

    memory = past(recipe.max_memory_events)
    return HistoryUpdate(
        f"user-{number:07d}",
        NOW_MS,
        past(recipe.max_recent_events),
        {"category-00": MemoryUpdate(NOW_MS, memory, num_events=len(memory))},
        num_events=len(memory),
    )


def drawn_history(draws: np.random.Generator, number: int) -> HistoryUpdate:
    """A user of a shop: few do much and most little, popular categories and items are common."""
    recipe = HistoryRecipe()
    count = int(np.clip(draws.lognormal(np.log(MEDIAN_EVENTS), SIGMA), 1, MAX_EVENTS))
    categories = _zipf(draws, NUM_CATEGORIES, count)
    ranks = _zipf(draws, ITEMS_PER_CATEGORY, count)
    instants = np.sort(draws.integers(NOW_MS - YEAR_MS, NOW_MS, count))
    actions = draws.choice([1, 2, 3], count, p=[0.8, 0.1, 0.1])

    def past(places: Any) -> Interactions:
        return Interactions(
            tuple(item_id(int(categories[place]), int(ranks[place])) for place in places),
            tuple(actions[places].tolist()),
            tuple(instants[places].tolist()),
        )

    memories = {}
    for category in np.unique(categories).tolist():
        places = np.flatnonzero(categories == category)
        memories[f"category-{category:02d}"] = MemoryUpdate(
            int(instants[places[-1]]),
            past(places[-recipe.max_memory_events :]),
            num_events=len(places),
        )
    recent = past(np.arange(count)[-recipe.max_recent_events :])
    user_id = f"user-{number:07d}"
    return HistoryUpdate(user_id, int(instants[-1]), recent, memories, num_events=count)


def _zipf(draws: np.random.Generator, size: int, count: int) -> Any:
    """Draws ranks below `size`, each as often as one over its place."""
    weights = 1.0 / np.arange(1, size + 1)
    return draws.choice(size, count, p=weights / weights.sum())


@contextmanager
def running_redis() -> Iterator[RedisSettings]:
    """Starts a Redis without persistence on a free port; it ends with the block."""
    (port,) = free_ports(1)
    with TemporaryDirectory() as folder:
        service = RedisService(Path(folder), port, VOLATILE)
        service.start()
        try:
            yield RedisSettings(address=service.address)
        finally:
            service.kill()
