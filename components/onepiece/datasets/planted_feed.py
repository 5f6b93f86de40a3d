"""A feed of our own making whose next item is known: a fast check of every retrieval model.

Items stand on circles. A user's next item is mostly the one after the last on its circle, now and
then another of that circle, seldom any item. Whoever knows the rule cannot be beaten: what it
reaches is the optimum that models are held against.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onepiece.datasets.event_data import EventData, ItemFeatures, Items
from onepiece.datasets.sequences import UserItems, click_events

FOLLOWS, STAYS = 0.7, 0.2
"""Probability of the next item of the circle, and of any other of it; chosen here."""


@dataclass(frozen=True, slots=True)
class PlantedFeed:
    """How large the feed is; the defaults train a model in seconds."""

    num_users: int = 1_500
    num_circles: int = 10
    circle_size: int = 30
    min_length: int = 8
    max_length: int = 16
    seed: int = 0

    @property
    def num_items(self) -> int:
        """Items of all circles."""
        return self.num_circles * self.circle_size


def planted_feed(world: PlantedFeed) -> EventData:
    """Draws the feed; equal worlds give equal events."""
    counts, items = Counter[str](), Items()
    for item in range(world.num_items):
        items.add(_name(item), ItemFeatures(type_id=f"circle {item // world.circle_size}"))
    return EventData(events=click_events(_sequences(world), counts), items=items, counts=counts)


def next_item_probabilities(last: int, world: PlantedFeed) -> NDArray[np.float64]:
    """Gives the probability of each item after `last`: (num_items,)."""
    first = last - last % world.circle_size
    circle = np.arange(first, first + world.circle_size)
    follower = first + (last + 1 - first) % world.circle_size
    probabilities = np.full(world.num_items, (1 - FOLLOWS - STAYS) / world.num_items)
    probabilities[circle] += STAYS / world.circle_size
    probabilities[follower] += FOLLOWS
    return probabilities


def _sequences(world: PlantedFeed) -> Iterator[UserItems]:
    random = np.random.default_rng(world.seed)
    after = np.array([next_item_probabilities(i, world) for i in range(world.num_items)])
    for user in range(world.num_users):
        items = [int(random.integers(world.num_items))]
        for _ in range(int(random.integers(world.min_length, world.max_length + 1)) - 1):
            items.append(int(random.choice(world.num_items, p=after[items[-1]])))
        yield f"user {user}", f"user-{user:05d}", [_name(item) for item in items]


def _name(item: int) -> str:
    return f"item-{item:05d}"
