"""What a replay measured: one row an intent, one row an order."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onepiece.simulation.visits import Intent

TRUTH_DEPTH = 20
"""Places that count for the true quality of a page, as in data.md's floors (MRR@20)."""


@dataclass(frozen=True, slots=True)
class PageTruth:
    """How well a page serves an intent in truth, however far it was read."""

    ranks: tuple[int, ...]
    """Rank from 1 of each demanded item, in the order of the demand; 0 if not in the top 20."""

    @property
    def reciprocal_rank_sum(self) -> float:
        """Sum of 1 / rank over the demanded items; one that is not found counts 0."""
        return sum(1.0 / rank for rank in self.ranks if rank)

    @property
    def num_found(self) -> int:
        """Demanded items in the top 20."""
        return sum(rank > 0 for rank in self.ranks)


def page_truth(intent: Intent, item_ids: Sequence[str]) -> PageTruth:
    """Finds each demanded item of an intent among the first 20 places of a page."""
    top = tuple(item_ids[:TRUTH_DEPTH])
    return PageTruth(
        ranks=tuple(
            top.index(demand.item_id) + 1 if demand.item_id in top else 0
            for demand in intent.demand
        )
    )


@dataclass(frozen=True, slots=True)
class IntentOutcome:
    """What became of one intent."""

    visit_id: str
    household_id: str
    query_id: str
    request_id: str
    at_ms: int
    """When the page was asked for."""
    truth: PageTruth
    num_seen: int
    num_clicks: int
    num_carts: int


@dataclass(frozen=True, slots=True)
class OrderOutcome:
    """One order."""

    household_id: str
    order_id: str
    at_ms: int
    gmv: float
    num_lines: int


@dataclass(frozen=True)
class IntentOutcomes:
    """What became of each intent, in the order of the replay; N = number of intents."""

    visit_ids: NDArray[np.object_]
    """(N,) str."""
    household_ids: NDArray[np.object_]
    """(N,) str."""
    query_ids: NDArray[np.object_]
    """(N,) str."""
    request_ids: NDArray[np.object_]
    """(N,) str."""
    at_ms: NDArray[np.int64]
    """(N,) when the page was asked for."""
    num_demanded: NDArray[np.int64]
    """(N,) items that she came for."""
    num_found: NDArray[np.int64]
    """(N,) of them, those in the first 20 places."""
    reciprocal_rank_sums: NDArray[np.float64]
    """(N,) sum of 1 / rank over the demanded items."""
    num_seen: NDArray[np.int64]
    """(N,) items she saw."""
    num_clicks: NDArray[np.int64]
    """(N,)."""
    num_carts: NDArray[np.int64]
    """(N,) lines put into the basket."""

    def __len__(self) -> int:
        """Counts the intents."""
        return len(self.at_ms)


@dataclass(frozen=True)
class OrderOutcomes:
    """Every order, in the order of the replay; O = number of orders."""

    household_ids: NDArray[np.object_]
    """(O,) str."""
    order_ids: NDArray[np.object_]
    """(O,) str."""
    at_ms: NDArray[np.int64]
    """(O,) when it was paid."""
    gmv: NDArray[np.float64]
    """(O,) quantity times price, summed over the lines."""
    num_lines: NDArray[np.int64]
    """(O,)."""

    def __len__(self) -> int:
        """Counts the orders."""
        return len(self.at_ms)


def intent_columns(rows: Sequence[IntentOutcome]) -> IntentOutcomes:
    """Turns outcomes of intents into columns."""
    return IntentOutcomes(
        visit_ids=np.array([row.visit_id for row in rows], dtype=object),
        household_ids=np.array([row.household_id for row in rows], dtype=object),
        query_ids=np.array([row.query_id for row in rows], dtype=object),
        request_ids=np.array([row.request_id for row in rows], dtype=object),
        at_ms=np.array([row.at_ms for row in rows], dtype=np.int64),
        num_demanded=np.array([len(row.truth.ranks) for row in rows], dtype=np.int64),
        num_found=np.array([row.truth.num_found for row in rows], dtype=np.int64),
        reciprocal_rank_sums=np.array([row.truth.reciprocal_rank_sum for row in rows], dtype=float),
        num_seen=np.array([row.num_seen for row in rows], dtype=np.int64),
        num_clicks=np.array([row.num_clicks for row in rows], dtype=np.int64),
        num_carts=np.array([row.num_carts for row in rows], dtype=np.int64),
    )


def order_columns(rows: Sequence[OrderOutcome]) -> OrderOutcomes:
    """Turns outcomes of orders into columns."""
    return OrderOutcomes(
        household_ids=np.array([row.household_id for row in rows], dtype=object),
        order_ids=np.array([row.order_id for row in rows], dtype=object),
        at_ms=np.array([row.at_ms for row in rows], dtype=np.int64),
        gmv=np.array([row.gmv for row in rows], dtype=np.float64),
        num_lines=np.array([row.num_lines for row in rows], dtype=np.int64),
    )


@dataclass(frozen=True)
class ReplayResult:
    """What a replay measured. Demand is real, browsing is simulated: say so beside any GMV."""

    intents: IntentOutcomes
    orders: OrderOutcomes

    def mrr_at_20(self) -> float:
        """Averages 1 / rank over all demanded items, not over intents; NaN without intents."""
        num_demanded = int(self.intents.num_demanded.sum())
        if num_demanded == 0:
            return float("nan")
        return float(self.intents.reciprocal_rank_sums.sum()) / num_demanded

    def gmv_by_household(self) -> dict[str, float]:
        """Sums the orders of each household that had an intent; 0 for one that ordered nothing."""
        sums: defaultdict[str, float] = defaultdict(float)
        for household_id, gmv in zip(
            self.orders.household_ids.tolist(), self.orders.gmv.tolist(), strict=True
        ):
            sums[household_id] += gmv
        households = sorted(set(self.intents.household_ids.tolist()))
        return {household_id: sums[household_id] for household_id in households}
