from itertools import product

import numpy as np
import pytest

from onepiece.training.uncertainty import (
    CELLS_AT_ONCE,
    PairedDifference,
    paired_bootstrap,
    seed_spread,
)


def bootstrap(
    first_R: np.ndarray, second_R: np.ndarray, users_R: np.ndarray, *, num_resamples: int = 2_000
) -> PairedDifference:
    return paired_bootstrap(
        first_R,
        second_R,
        users_R=users_R,
        generator=np.random.default_rng(7),
        confidence=0.9,
        num_resamples=num_resamples,
    )


def test_a_model_does_not_differ_from_itself() -> None:
    values_R = np.array([0.0, 1.0, 0.5, 0.2])

    same = bootstrap(values_R, values_R, np.arange(4))

    assert same == PairedDifference(value=0.0, low=0.0, high=0.0, p_value=1.0, num_users=4)


def test_an_advantage_that_every_user_has_is_certain_however_much_users_differ() -> None:
    second_R = np.array([0.0, 100.0, -50.0, 7.0])

    better = bootstrap(second_R + 0.25, second_R, np.arange(4))

    assert (better.value, better.low, better.high) == pytest.approx((0.25, 0.25, 0.25))
    assert better.p_value == 2 / 2_001


def test_swapping_the_models_turns_the_difference_round() -> None:
    generator = np.random.default_rng(1)
    first_R, second_R = generator.uniform(size=(2, 30))
    users_R = generator.integers(10, size=30)

    there, back = bootstrap(first_R, second_R, users_R), bootstrap(second_R, first_R, users_R)

    assert (back.value, back.low, back.high) == pytest.approx(
        (-there.value, -there.high, -there.low)
    )
    assert back.p_value == there.p_value


def test_resamples_spread_as_all_equally_likely_draws_of_users_do() -> None:
    # Users 1, 2 and 3 have one, two and three requests: 27 equally likely draws, all listed.
    users_R = np.array([3, 1, 2, 3, 2, 3])
    first_R = np.array([0.9, 0.0, 0.4, 0.2, -0.6, 0.1])
    second_R = np.zeros(6)
    of_user = {user: first_R[users_R == user] for user in (1, 2, 3)}
    means = [
        np.concatenate([of_user[user] for user in drawn]).mean()
        for drawn in product(of_user, repeat=3)
    ]
    low, high = np.quantile(means, [0.05, 0.95], method="inverted_cdf")

    result = bootstrap(first_R, second_R, users_R, num_resamples=20_000)

    assert result.value == pytest.approx(first_R.mean())
    assert (result.low, result.high) == pytest.approx((low, high))
    expected_p = 2 * min(np.mean(np.array(means) <= 0), np.mean(np.array(means) >= 0))
    assert result.p_value == pytest.approx(expected_p, abs=0.02)


def test_requests_of_one_user_do_not_count_as_independent() -> None:
    generator = np.random.default_rng(2)
    per_user_U = generator.standard_normal(40)
    once = bootstrap(per_user_U, np.zeros(40), np.arange(40))

    many = bootstrap(np.repeat(per_user_U, 9), np.zeros(360), np.repeat(np.arange(40), 9))

    assert (many.low, many.high) == pytest.approx((once.low, once.high))


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    num_covered = 0
    for _ in range(200):
        differences_R = generator.standard_normal(60) + 0.3
        result = bootstrap(differences_R, np.zeros(60), np.arange(60), num_resamples=400)
        num_covered += result.low <= 0.3 <= result.high

    # 90% of 200, give or take three standard errors.
    assert 167 <= num_covered <= 193


def test_draws_too_many_for_one_part_are_those_of_one_draw() -> None:
    num_users, num_resamples = 1_000, 5_000
    values_R = np.random.default_rng(4).uniform(size=num_users)
    assert num_users * num_resamples > CELLS_AT_ONCE
    drawn = np.random.default_rng(7).integers(num_users, size=(num_resamples, num_users))
    low, high = np.quantile(values_R[drawn].mean(1), [0.05, 0.95])

    result = bootstrap(
        values_R, np.zeros(num_users), np.arange(num_users), num_resamples=num_resamples
    )

    assert (result.low, result.high) == pytest.approx((low, high))


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        bootstrap(np.array([0.1, np.nan]), np.zeros(2), np.arange(2))
    with pytest.raises(ValueError, match="1 users"):
        bootstrap(np.ones(2), np.zeros(2), np.zeros(2, dtype=np.int64))


def test_seeds_have_a_mean_and_a_sample_deviation() -> None:
    spread = seed_spread([0.1, 0.2, 0.6])

    assert spread.mean == pytest.approx(0.3)
    # Squares of -.2, -.1 and .3 over n - 1.
    assert spread.deviation == pytest.approx((0.14 / 2) ** 0.5)
    assert spread.num_seeds == 3


def test_one_seed_shows_no_spread_and_none_is_refused() -> None:
    assert seed_spread([0.5]).deviation is None
    with pytest.raises(ValueError, match="at least one"):
        seed_spread([])
