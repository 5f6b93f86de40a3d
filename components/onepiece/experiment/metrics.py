"""Metrics: what is measured, as a numerator and a denominator for each user.

UU is the paper's word for an exposed user. Every metric but the two ratios is a mean over all
exposed users of an arm, so a user who did nothing counts with zero.

Source: OnePiece (arXiv:2509.18091), section 5.1, tables 7 and 8, for the metrics' names.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from onepiece.experiment.estimates import Floats
from onepiece.experiment.outcomes import Outcomes, sum_by_user

TRIMMED_SHARE = 0.005
"""Share of all orders left out of GMV(99.5%), the largest by value; the paper's."""


class Kind(StrEnum):
    """How a value is printed."""

    MONEY = "money"
    NUMBER = "number"
    SHARE = "share"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric and how to compute it."""

    key: str
    """Name in JSON."""
    label: str
    """Name for readers."""
    kind: Kind
    """How a value is printed."""
    meaning: str
    """What it says, in a sentence."""
    numerators: Callable[[Outcomes], Floats]
    """(U,) what is added up."""
    denominators: Callable[[Outcomes], Floats] | None = None
    """(U,) what it is divided by; None: by the number of users."""

    @property
    def is_adjustable(self) -> bool:
        """Whether the user's past is used to narrow its interval; not for ratios."""
        return self.denominators is None


def trimmed_gmv(outcomes: Outcomes) -> Floats:
    """Gives each user's GMV without the largest 0.5% of all orders, rounded down: (U,).

    The orders are those of all arms together, so that every arm is cut at the same value. Of
    equal orders the one of the later user is cut first.
    """
    values = outcomes.order_values
    num_cut = int(len(values) * TRIMMED_SHARE)
    kept = np.sort(np.lexsort((outcomes.order_users, values))[: len(values) - num_cut])
    return sum_by_user(outcomes.order_users[kept], values[kept], num_users=len(outcomes.user_ids))


METRICS: tuple[Metric, ...] = (
    Metric(
        "gmv_per_user",
        "GMV/UU",
        Kind.MONEY,
        "Value of the goods ordered through the answers, per exposed user.",
        lambda outcomes: outcomes.gmv,
    ),
    Metric(
        "trimmed_gmv_per_user",
        "GMV(99.5%)/UU",
        Kind.MONEY,
        "The same without the largest 0.5% of all orders, which a few users can decide.",
        trimmed_gmv,
    ),
    Metric(
        "orders_per_user",
        "Orders/UU",
        Kind.NUMBER,
        "Orders with at least one item found through an answer, per exposed user.",
        lambda outcomes: outcomes.num_orders.astype(np.float64),
    ),
    Metric(
        "buyer_share",
        "Buyer share",
        Kind.SHARE,
        "Share of exposed users with at least one order.",
        lambda outcomes: (outcomes.num_orders > 0).astype(np.float64),
    ),
    Metric(
        "ctr",
        "CTR",
        Kind.SHARE,
        "Items clicked out of items seen.",
        lambda outcomes: outcomes.num_clicks.astype(np.float64),
        lambda outcomes: outcomes.num_impressions.astype(np.float64),
    ),
    Metric(
        "ctcvr",
        "CTCVR",
        Kind.SHARE,
        "Items ordered out of items seen.",
        lambda outcomes: outcomes.num_ordered_items.astype(np.float64),
        lambda outcomes: outcomes.num_impressions.astype(np.float64),
    ),
)
"""All metrics, the one that decides first."""
PRIMARY = METRICS[0]
"""The metric of the headline, chosen before any result: GMV per exposed user."""
