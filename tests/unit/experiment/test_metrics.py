import numpy as np
import pytest

from onepiece.experiment.join import join_outcomes
from onepiece.experiment.metrics import METRICS, PRIMARY, trimmed_gmv


@pytest.fixture(scope="module")
def outcomes(plan, phase, shop):
    return join_outcomes(shop(plan, num_users=150, seed=2), plan, phase=phase)


def value(outcomes, key):
    metric = next(metric for metric in METRICS if metric.key == key)
    numerators = metric.numerators(outcomes).sum()
    if metric.denominators is None:
        return numerators / len(outcomes.user_ids)
    return numerators / metric.denominators(outcomes).sum()


def test_gmv_per_user_decides():
    assert PRIMARY.key == "gmv_per_user"
    assert len({metric.key for metric in METRICS}) == len(METRICS) == 6


def test_metrics_are_what_their_names_say(outcomes):
    users = len(outcomes.user_ids)

    assert value(outcomes, "gmv_per_user") == pytest.approx(outcomes.order_values.sum() / users)
    assert value(outcomes, "orders_per_user") == len(outcomes.order_values) / users
    assert value(outcomes, "buyer_share") == len(set(outcomes.order_users.tolist())) / users
    assert value(outcomes, "ctr") == outcomes.num_clicks.sum() / outcomes.num_impressions.sum()
    assert value(outcomes, "ctcvr") < value(outcomes, "ctr")


def test_trimmed_gmv_leaves_out_the_largest_half_percent_of_orders(outcomes):
    num_cut = len(outcomes.order_values) // 200

    trimmed = trimmed_gmv(outcomes)

    assert num_cut >= 1
    kept = np.sort(outcomes.order_values)[:-num_cut]
    assert trimmed.sum() == pytest.approx(kept.sum())
    assert (trimmed <= outcomes.gmv + 1e-9).all()
