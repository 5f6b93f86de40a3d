"""Small shops and requests for the context's tests."""

import numpy as np
import pytest

from onepiece.context.request import CANDIDATE_FEATURES, Candidates, ContextRequest
from onepiece.context.vocabulary import Vocabulary, build_vocabulary
from onepiece.events.catalogue import Catalogue
from onepiece.events.interactions import Interactions
from onepiece.features.store import Signals, UserProfile

AS_OF_MS = 1_500_000_000_000
DAY_MS = 86_400_000


class Shop:
    """Five items, two categories, and requests to it."""

    as_of_ms = AS_OF_MS
    day_ms = DAY_MS
    catalogue = Catalogue(
        item_ids=("a", "b", "c", "d", "e"),
        category_ids=("milk", "milk", "fresh yogurt", "fresh yogurt", "fresh yogurt"),
        type_ids=("t1", "t1", "t2", "unknown", "t3"),
        brand_ids=("x", "y", "x", "y", "x"),
        maker_ids=("m", "m", "n", "n", "n"),
        department_ids=("food",) * 5,
        sizes=("1 l",) * 5,
    )

    def vocabulary(self) -> Vocabulary:
        return build_vocabulary(
            self.catalogue,
            query_ids=("milk", "fresh yogurt"),
            order_counts={"b": 7},
            profiles=[UserProfile("25-34", "high", "2"), UserProfile("35-44", "unknown", "2")],
        )

    def interactions(self, *events: tuple[str, int, int]) -> Interactions:
        """Events (item, action, ms before the request), in the order given."""
        return Interactions(
            tuple(item for item, _, _ in events),
            tuple(action for _, action, _ in events),
            tuple(AS_OF_MS - before_ms for _, _, before_ms in events),
        )

    def request(
        self,
        *,
        signals: Signals | None = None,
        query_id: str = "milk",
        candidates: tuple[str, ...] = (),
    ) -> ContextRequest:
        features = np.zeros((len(candidates), len(CANDIDATE_FEATURES)), np.float32)
        return ContextRequest(
            user_id="user",
            query_id=query_id,
            store_id="store",
            as_of_ms=AS_OF_MS,
            signals=signals or Signals(),
            candidates=Candidates(candidates, features),
        )


@pytest.fixture(scope="session")
def shop() -> Shop:
    return Shop()
