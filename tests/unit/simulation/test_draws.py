from hypothesis import given
from hypothesis import strategies as st

from onepiece.simulation.draws import Draws

names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=8)


@given(seed=st.integers(0, 2**63), scope=st.lists(names), name=st.lists(names))
def test_equal_names_give_equal_draws_between_zero_and_one(seed, scope, name):
    draws = Draws(seed, *scope)
    draws.uniform("something else first")

    value = draws.uniform(*name)

    assert value == Draws(seed, *scope).uniform(*name)
    assert 0.0 <= value < 1.0


def test_every_part_of_a_name_matters():
    values = [
        Draws(0, "a", "bc").uniform("d"),
        Draws(0, "ab", "c").uniform("d"),
        Draws(0, "a").uniform("bc", "d"),
        Draws(0, "a", "bc", "d").uniform(),
        Draws(0, "ab").uniform("c"),
        Draws(0, "a").uniform("bc"),
        Draws(1, "a", "bc").uniform("d"),
        Draws(0, "a", "bc").uniform("e"),
    ]

    assert len(set(values)) == len(values)


def test_draws_are_spread_evenly():
    draws = Draws(3, "evenly")

    values = [draws.uniform(str(number)) for number in range(10_000)]

    # Ten equal bins of 1,000 expected each; the standard deviation is 30.
    assert all(880 < sum(int(v * 10) == b for v in values) < 1_120 for b in range(10))
