import pytest

from onepiece.simulation.replay_result import page_truth


@pytest.mark.parametrize(("place", "rank"), [(1, 1), (2, 2), (20, 20), (21, 0)])
def test_the_first_twenty_places_count(make, place, rank):
    intent = make.visit("v", ["a"]).intents[0]
    page = [f"other {number}" for number in range(1, place)] + ["a"]

    truth = page_truth(intent, page)

    assert truth.ranks == (rank,)
    assert truth.num_found == (rank > 0)
    assert truth.reciprocal_rank_sum == (1 / rank if rank else 0.0)


def test_every_demanded_item_has_its_rank(make):
    intent = make.visit("v", ["a", "b", "c"]).intents[0]

    truth = page_truth(intent, ["c", "x", "y", "a"])

    assert truth.ranks == (4, 0, 1)
    assert truth.num_found == 2
    assert truth.reciprocal_rank_sum == 1.25
