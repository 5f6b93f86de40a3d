import itertools
from collections import Counter

import numpy as np

from onepiece.datasets.planted_feed import PlantedFeed, next_item_probabilities, planted_feed

SMALL = PlantedFeed(num_users=400, num_circles=2, circle_size=3)


def test_probabilities_sum_to_one_and_the_follower_leads():
    for last in range(SMALL.num_items):
        probabilities = next_item_probabilities(last, SMALL)

        assert np.isclose(probabilities.sum(), 1.0)
        assert probabilities.argmax() // 3 == last // 3
        assert probabilities.argmax() == (last + 1 if last % 3 < 2 else last - 2)


def test_users_follow_the_probabilities():
    items: dict[str, list[int]] = {}
    for event in planted_feed(SMALL).events:
        items.setdefault(event.user_id, []).append(int(event.item_id[-5:]))

    after_zero = Counter(b for one in items.values() for a, b in itertools.pairwise(one) if a == 0)

    shares = np.array([after_zero[item] for item in range(6)]) / after_zero.total()
    expected = next_item_probabilities(0, SMALL)
    # Four standard errors of a share.
    assert (abs(shares - expected) < 4 * np.sqrt(expected / after_zero.total())).all()


def test_the_same_world_gives_the_same_events():
    first = [event.event_id + event.item_id for event in planted_feed(SMALL).events]
    second = [event.event_id + event.item_id for event in planted_feed(SMALL).events]

    assert first == second
